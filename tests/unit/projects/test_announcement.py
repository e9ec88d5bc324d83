"""Our line of a project's description comes, changes and goes; what people wrote stays."""

from types import SimpleNamespace

import pytest

from maskloop.errors import StudioError
from maskloop.learning.training.job import TrainingProgress
from maskloop_studio.labelstudio.models import to_project
from maskloop_studio.projects.announcement import MARK, Announcer, described, withdraw
from maskloop_studio.projects.training import StepLines

LINE = f"{MARK}v3 is shown"


class Studio:
    def __init__(self, description=""):
        self.description, self.refuses, self.writes = description, False, 0

    def project(self, project_id):
        return to_project({"id": project_id, "label_config": "", "description": self.description})

    def update_project(self, project_id, *, description):
        if self.refuses:
            raise StudioError("project 1", expected="success", got="status 500", remedy="wait")
        self.description, self.writes = description, self.writes + 1


@pytest.mark.parametrize(
    ("before", "line", "after"),
    [
        pytest.param("", LINE, LINE, id="empty"),
        pytest.param("Our fruit.\nSummer.", LINE, f"Our fruit.\nSummer.\n{LINE}", id="a person's text"),
        pytest.param(f"Fruit.\n{MARK}v2 is shown", LINE, f"Fruit.\n{LINE}", id="an older line of ours"),
        pytest.param(f"{MARK}v2\nFruit.", LINE, f"Fruit.\n{LINE}", id="text written below it"),
        pytest.param(f"Fruit.\n{LINE}", None, "Fruit.", id="withdrawn"),
        pytest.param("Fruit.", None, "Fruit.", id="nothing to withdraw"),
    ],
)
def test_described_changes_our_line_only(before, line, after):
    assert described(before, line) == after
    assert described(after, line) == after


def announcer(settings, studio, connected=(1,), **changes):
    projects = SimpleNamespace(ids=lambda: connected)
    return Announcer(1, settings=settings.model_copy(update=changes), client=studio, projects=projects)


def test_announcer_follows_the_versions_and_writes_nothing_twice(settings):
    studio = Studio("Fruit.")
    ours = announcer(settings, studio)
    ours.training("m-v1")
    assert "m-v1 is shown; a training is running since 20" in studio.description
    ours.shown("m-v2", "draws nothing")
    ours.shown("m-v2", "draws nothing")
    assert studio.writes == 2
    assert studio.description.endswith(": it draws nothing")
    assert withdraw(1, studio)
    assert (studio.description, withdraw(1, studio)) == ("Fruit.", False)


@pytest.mark.parametrize(("connected", "announce"), [((), True), ((1,), False)], ids=["gone", "off"])
def test_announcer_switched_off_or_disconnected_writes_nothing(settings, connected, announce):
    studio = Studio()
    announcer(settings, studio, connected, announce=announce).shown("m-v2", None)
    assert studio.writes == 0


def test_announcer_refused_is_logged_and_goes_on(settings, caplog):
    studio = Studio()
    studio.refuses = True
    announcer(settings, studio).trained("m-v2", "refused")
    assert "not_announced" in caplog.text


def test_step_lines_are_few_and_end_with_the_last_step(caplog):
    caplog.set_level("INFO")
    times = iter(range(0, 100, 4))
    lines = StepLines(7, clock_s=lambda: next(times))
    for step in range(1, 9):
        lines.note(TrainingProgress(step=step, steps=8, loss=1.23456, eta_s=9.6))
    steps = [record.message for record in caplog.records if "training_step" in record.message]
    assert len(steps) == 4  # at 0, 12 and 24 s, and the last
    assert "step=8" in steps[-1]
    assert "loss=1.235" in steps[-1]
