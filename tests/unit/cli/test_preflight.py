"""Nothing is queued for a project that is not there, and what would wait for nothing is named."""

from types import SimpleNamespace

import pytest

from maskloop.errors import ConfigurationError, StudioError
from maskloop_studio.cli import preflight
from maskloop_studio.cli.preflight import require_project, warn_of_settings, warn_unserved


def _missing(number):
    raise StudioError(f"project {number}", expected="a project", got="404", remedy="check its number")


@pytest.mark.parametrize(
    ("connected", "project", "words"),
    [
        pytest.param((), lambda number: number, "connected projects: none", id="none connected"),
        pytest.param((3, 12), lambda number: number, "connected projects: 3, 12", id="others connected"),
        pytest.param((99,), _missing, "404", id="gone from Label Studio"),
    ],
)
def test_require_project_unknown_raises(connected, project, words):
    projects = SimpleNamespace(ids=lambda: frozenset(connected))
    with pytest.raises((ConfigurationError, StudioError), match=words):
        require_project(99, projects=projects, client=SimpleNamespace(project=project))


def test_require_project_connected_passes():
    projects = SimpleNamespace(ids=lambda: frozenset({99}))
    require_project(99, projects=projects, client=SimpleNamespace(project=lambda number: number))


@pytest.mark.parametrize(("served", "lines"), [(True, 0), (False, 1)], ids=["served", "unserved"])
def test_warn_unserved_names_the_queue(monkeypatch, capsys, served, lines):
    monkeypatch.setattr(preflight, "is_served", lambda queue, settings: served)
    warn_unserved(SimpleNamespace(value="train"), settings=None)
    text = capsys.readouterr().err
    assert text.count("worker --queue train") == lines


def test_warn_of_settings_names_each_that_is_missing_or_bad(capsys, settings):
    bad = settings.model_copy(
        update={"train_cron": "0 0 31 2 *", "label_studio_url": None, "label_studio_api_key": None}
    )
    warn_of_settings(bad)
    text = capsys.readouterr().err
    names = ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "MASKLOOP_TRAIN_CRON")
    assert [name for name in names if text.count(name) == 1] == list(names)
