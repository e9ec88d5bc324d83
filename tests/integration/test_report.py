"""`maskloop report`: what annotators did to predictions, of images chosen and of images drawn by chance."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from maskloop.selection.arrangement import drawn_at_random
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.types import EditCounts
from maskloop_studio import services as services_module
from maskloop_studio.cli import main as cli

SAVED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def services(make_services, monkeypatch):
    made = make_services(random_share=0.3)
    monkeypatch.setattr(services_module, "process_services", lambda: made)
    return made


def correct(services, task_id, edits, version="maskloop-1-v2"):
    said = AnnotationSnapshot(
        annotation_id=task_id,
        project_id=1,
        task_id=task_id,
        updated_at=SAVED,
        state="submitted",
        content={"result": [], "lead_time": 20.0},
        label_config="<View/>",
        split="train",
        read_at=SAVED + timedelta(minutes=1),
    )
    masks = DerivedMasks(
        image_key="0" * 64,
        image_uri="/a.png",
        size_hw=(8, 8),
        segments=(),
        edits=edits,
        approximate=False,
        model_version=version,
    )
    services.store.corrections.save(services.store.annotations.save(said).version_id, masks)


def shown(*words):
    result = CliRunner().invoke(cli.app, ["report", "1", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_report_compares_chosen_images_with_those_of_chance(services):
    drawn = drawn_at_random(range(1, 61), random_share=0.3, seed=services.settings.seed)
    for task_id, by_chance in zip(range(1, 61), drawn, strict=True):
        changed = (2 if by_chance else 3) + task_id % 2
        correct(services, task_id, EditCounts(kept=3, changed=changed))
    told = json.loads(shown("--json"))
    assert told["worth"]["random_images"] == drawn.sum() > 5
    odd_share = sum(task_id % 2 for task_id in range(1, 61) if drawn[task_id - 1]) / drawn.sum()
    assert told["worth"]["random_mean"] == pytest.approx(2 + odd_share)
    assert told["worth"]["ratio_low"] > 1
    (version,) = told["versions"]
    assert (version["images"], version["lead_time_s"]) == (60, 20.0)
    assert version["kept_share"] == pytest.approx(180 / (180 + version["edits"]["changed"]))
    assert "times the corrections of one drawn by chance" in shown()


def test_report_versions_stand_in_their_order(services):
    for number in (10, 9, 2):
        correct(services, number, EditCounts(added=1), version=f"maskloop-1-v{number}")
    told = json.loads(shown("--json"))
    assert [version["model_version"] for version in told["versions"]] == [
        "maskloop-1-v2",
        "maskloop-1-v9",
        "maskloop-1-v10",
    ]
    assert told["versions"][0]["kept_share"] is None
    assert "too few corrected images" in shown()


def test_report_nothing_corrected_says_so(services):
    assert "no prediction has been corrected yet" in shown()


def test_report_nothing_left_to_chance_says_what_to_set(services):
    services.settings = services.settings.model_copy(update={"random_share": 0.0})
    correct(services, 1, EditCounts(kept=1))
    assert "MASKLOOP_RANDOM_SHARE" in shown()
