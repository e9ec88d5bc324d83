"""A ledger of edits has the figures of the report that reads everything, also after new annotations."""

import dataclasses

import pytest
from tests.fakes.looped_project import PROJECT, annotate, make_services

from maskloop.store import edit_rows
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.sessions import now
from maskloop.types import EditCounts
from maskloop_studio.projects import edit_ledger
from maskloop_studio.projects.edit_ledger import EditLedger
from maskloop_studio.projects.edit_report import report_project

SHARED = ("images", "edits", "lead_time_s", "work_saved", "untouched", "untouched_s")


@pytest.fixture
def services(settings):
    made = make_services(settings)
    yield made
    made.close()


def _figures(line):
    return {name: getattr(line, name) for name in SHARED}


def _assert_as_report(ledger, services):
    summary = ledger.summary(services.settings)
    report = report_project(PROJECT, corrections=services.store.corrections, settings=services.settings)
    for kind, name in (("versions", "model_version"), ("annotators", "annotator")):
        ours, theirs = getattr(summary, kind), getattr(report, kind)
        assert [getattr(one, name) for one in ours] == [getattr(one, name) for one in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert _figures(mine) == pytest.approx(_figures(other)) or _figures(mine) == _figures(other)
    assert dataclasses.astuple(summary.weights) == pytest.approx(dataclasses.astuple(report.weights))


def _save(services, number, edits, *, label_edits=True, annotator=3, images=1, lead_s=20.0):
    saved = services.store.annotations.save(
        AnnotationSnapshot(
            annotation_id=number,
            project_id=PROJECT,
            task_id=number,
            updated_at=now(),
            state="submitted",
            content={"result": [], "lead_time": lead_s, "completed_by": annotator},
            label_config="<View/>",
            split="train",
            read_at=now(),
        )
    )
    masks = [
        DerivedMasks(
            image_key="k",
            image_uri="",
            size_hw=(8, 8),
            segments=(),
            edits=edits,
            model_version=f"m-v{1 + number % 12}",
            label_edits={"disc": edits} if label_edits else None,
            image_index=index,
        )
        for index in range(images)
    ]
    services.store.corrections.save(saved.version_id, *masks)
    return saved.version_id


@pytest.mark.parametrize("rows_at_once", [3, 5000])
def test_summary_is_that_of_the_report(services, monkeypatch, rows_at_once):
    monkeypatch.setattr(edit_rows, "ROWS_AT_ONCE", rows_at_once)
    for number in range(1, 90):
        edits = EditCounts(
            kept=number % 3, changed=2, nudged=number % 2, redrawn=1, removed=number % 4, added=number % 2
        )
        _save(
            services,
            number,
            EditCounts(kept=2) if number % 10 == 0 else edits,
            label_edits=number % 7 != 0,
            annotator=number % 4,
            images=1 + number % 3,
            lead_s=None if number % 11 == 0 else 5.0 + number,
        )
    ledger = EditLedger(PROJECT)
    assert ledger.update(services.store.edit_rows) == 89
    _assert_as_report(ledger, services)
    assert ledger.update(services.store.edit_rows) == 0
    _assert_as_report(ledger, services)


def test_update_reads_new_changed_and_late_annotations_and_forgets_deleted(services):
    ledger = EditLedger(PROJECT)
    for seed in (1, 2, 3):
        annotate(services, seed, model_version="m-v1")
    ledger.update(services.store.edit_rows)
    services.store.annotations.delete(PROJECT, annotation_ids=[1002])
    _save(services, 1001, EditCounts(kept=5))  # again, and more
    _save(services, 4000, EditCounts(added=5))
    assert ledger.update(services.store.edit_rows) == 2
    _assert_as_report(ledger, services)
    summary = ledger.summary(services.settings)
    assert sum(one.images for one in summary.versions) == 3


def test_update_masks_of_an_older_version_that_come_late_are_read(services, monkeypatch):
    late = annotate(services, 1)  # no model version: it has no edits yet
    annotate(services, 2, model_version="m-v1")
    ledger = EditLedger(PROJECT)
    assert ledger.update(services.store.edit_rows) == 1
    masks = DerivedMasks(
        image_key="k",
        image_uri="",
        size_hw=(8, 8),
        segments=(),
        edits=EditCounts(kept=1),
        model_version="m-v1",
    )
    services.store.corrections.save(late, masks)
    assert ledger.update(services.store.edit_rows) == 1
    monkeypatch.setattr(edit_ledger, "OVERLAP", 0)
    assert ledger.update(services.store.edit_rows) == 0


def test_summary_of_nothing_is_empty(services):
    ledger = EditLedger(PROJECT)
    assert ledger.update(services.store.edit_rows) == 0
    summary = ledger.summary(services.settings)
    assert (summary.versions, summary.annotators) == ((), ())
