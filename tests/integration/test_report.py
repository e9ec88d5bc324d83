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


def correct(services, task_id, edits, version="maskloop-1-v2", *, annotator=3, seconds=20.0, **more):
    said = AnnotationSnapshot(
        annotation_id=task_id,
        project_id=1,
        task_id=task_id,
        updated_at=SAVED,
        state="submitted",
        content={"result": [], "lead_time": seconds, "completed_by": annotator},
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
        model_version=version,
        label_edits=more.get("label_edits", {"disc": edits}),
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


def test_report_counts_kinds_work_saved_and_labels(services):
    edits = EditCounts(kept=4, changed=3, nudged=1, merged=2, added=1, removed=1)
    correct(services, 1, edits, label_edits={"disc": edits})
    correct(services, 2, EditCounts(kept=1), label_edits={"square": EditCounts(kept=1)})
    report = json.loads(shown("--json"))
    (version,) = report["versions"]
    assert (version["edits"]["nudged"], version["edits"]["merged"]) == (1, 2)
    # 7 regions of 34 s; nudge 14, 3 deletions of 3 s, one drawn
    assert version["work_saved"] == pytest.approx(1 - (14 + 9 + 34) / (7 * 34))
    assert version["label_edits"]["square"]["kept"] == 1
    assert version["label_edits"]["disc"]["merged"] == 2
    assert (version["untouched"], version["untouched_s"]) == (1, 20.0)
    assert "MASKLOOP_EDIT_SECONDS" in report["weights"]["source"]


def test_report_enough_lead_times_measure_the_weights(services):
    for task_id in range(1, 81):
        added, nudged = task_id % 4, task_id % 3
        edits = EditCounts(kept=1, added=added, changed=nudged, nudged=nudged)
        correct(services, task_id, edits, seconds=5.0 + 60 * added + 7 * nudged)
    weights = json.loads(shown("--json"))["weights"]
    assert (weights["add"], weights["nudge"]) == (pytest.approx(60, abs=2), pytest.approx(7, abs=2))
    assert "80 annotations" in weights["source"]
    assert "measured from the lead times of 80 annotations" in shown()


def test_report_edit_seconds_are_a_setting(services):
    services.settings = services.settings.model_copy(update={"edit_seconds": {"add": 100.0}})
    correct(services, 1, EditCounts(changed=1, nudged=1))
    assert json.loads(shown("--json"))["versions"][0]["work_saved"] == pytest.approx(1 - 14 / 100)


def test_report_annotators_untouched_submissions_are_visible(services):
    for task_id in range(1, 11):
        correct(services, task_id, EditCounts(kept=3, changed=2, redrawn=2), annotator=3, seconds=40.0)
    for task_id in range(11, 21):
        correct(services, task_id, EditCounts(kept=5), annotator=8, seconds=2.5)
    correct(services, 21, EditCounts(changed=1), annotator=None, label_edits=None)
    by_number = {one["annotator"]: one for one in json.loads(shown("--json"))["annotators"]}
    assert {user: one["images"] for user, one in by_number.items()} == {None: 1, 3: 10, 8: 10}
    assert (by_number[8]["untouched"], by_number[8]["untouched_s"]) == (10, 2.5)
    assert by_number[3]["untouched"] == 0
    text = shown("--annotators")
    assert "user 8 submitted 10 of 10 images untouched (median 2 s), the others 0 of 11" in text
    assert "user 3 submitted" not in text
    assert "not known" in text


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", [(), ("--annotators",)], ids=["versions", "annotators"])
def test_report_tables_fit(services, monkeypatch, columns, words):
    monkeypatch.setenv("COLUMNS", str(columns))
    many = EditCounts(kept=12345, changed=1111 * 5, nudged=1111, redrawn=1112, relabelled=1113, added=12346)
    for task_id in range(1, 13):
        correct(services, task_id, many, version="maskloop-123-v45", annotator=1234, seconds=1234.0)
        correct(services, 100 + task_id, EditCounts(kept=2), annotator=9, seconds=12.0)
    text = shown(*words)
    tables = text.partition("a chosen image")[0].partition("too few corrected")[0]  # sentences are wrapped
    assert max(len(line) for line in tables.splitlines()) <= columns
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert tables.count("(") == tables.count(")") > 0, "no cell is cut off"
    headings = ["relabelled", "added", "images", "saved", "untouched"] + ([] if words else ["by chance"])
    assert [name for name in headings if name not in tables] == []
    for count in (12345 * 12, 1111 * 12, 1112 * 12, 1113 * 12, 12346 * 12):
        assert str(count) in text.split()
    assert ("user 1234" if words else "maskloop-123-v45") in text
