"""The steps from an older database to today's: nothing that was kept is lost on the way."""

import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from maskloop.errors import StoreError
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.store.migrations import HEAD, bring_up_to_date
from maskloop.store.segments import segments_to_text
from maskloop.store.sessions import _tune_sqlite
from maskloop.store.tables import Base
from maskloop.types import EditCounts, Segment

AT = "2026-01-02 03:04:05.678901"  # UTC


def _run_first_step(connection):
    from alembic.operations import Operations

    from maskloop.store.migrations.versions import v0001_first

    v0001_first.upgrade(Operations(MigrationContext.configure(connection)))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, settings):
    """The address of a database without a table."""
    if request.param == "sqlite":
        settings.home.mkdir()
        yield settings.resolved_database_url
    else:
        with request.getfixturevalue("postgres").database(template="template0") as url:
            yield url


@pytest.fixture
def old_url(empty_url, make_segment):
    """A database of the first form, as it was before it knew of forms, with something of everything in it."""
    url = _with_driver(empty_url)
    engine = create_engine(url)
    segments = segments_to_text((make_segment(),))
    with engine.begin() as connection:
        _run_first_step(connection)
        at = AT if url.startswith("sqlite") else f"{AT}+00"
        _insert(connection, "projects", project_id=1, label_config="<View/>", options="{}", connected_at=at)
        common = {"action": "ANNOTATION_CREATED", "project_id": 1, "subject_ids": "[7]", "attempts": 0}
        for number, status in enumerate(("done", "done", "pending", "dead"), start=1):
            row = common | {"event_id": number, "key": f"key-{number}", "status": status}
            _insert(connection, "events", **row, received_at=at, due_at=at)
        for annotation, sequence, deleted in ((70, 1, False), (71, 2, True)):
            counts = {"kept": 1, "changed": 0, "added": 2, "removed": 0, "height": 32, "width": 48}
            _insert(
                connection,
                "corrections",
                **counts,
                annotation_id=annotation,
                project_id=1,
                task_id=7,
                split="train",
                sequence=sequence,
                updated_at=at,
                image_key="0" * 64,
                segments=segments,
                result='[{"id":"r"}]',
                lead_time_s=3.5,
                model_version="maskloop-1-v1",
                ground_truth=False,
                approximate=False,
                deleted=deleted,
            )
        for number, status in enumerate(("finished", "failed", "running", "queued"), start=1):
            _insert(
                connection,
                "trainings",
                training_id=number,
                project_id=1,
                reason="button",
                status=status,
                requested_at=at,
                through_sequence=1,
                step=5,
                steps=9,
                outcome=json.dumps({"promoted": True}) if status == "finished" else None,
            )
        _insert(
            connection,
            "pushed_predictions",
            project_id=1,
            task_id=7,
            model_version="maskloop-1-v1",
            prediction_id=99,
        )
    engine.dispose()
    return url


def _insert(connection, table, **values):
    names = ", ".join(values)
    slots = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({slots})"), values)


def _with_driver(url):
    return url.replace("postgresql://", "postgresql+psycopg://")


def test_open_older_database_carries_everything_over(old_url):
    store = Store(old_url)
    (correction,) = store.corrections.of(1)
    assert (correction.annotation_id, correction.edits.added, correction.lead_time_s) == (70, 2, 3.5)
    assert correction.updated_at.isoformat() == "2026-01-02T03:04:05.678901+00:00"
    assert store.annotations.history(70)[0].content == {"result": [{"id": "r"}]}
    assert len(store.annotations.history(71)) == 1
    assert set(store.annotations.known(1)) == {70}
    assert store.pushes.of(1, "maskloop-1-v1") == {7: 99}
    assert [training.status for training in store.trainings.of(1)] == [
        "finished",
        "failed",
        "queued",
        "dropped",
    ]
    assert store.trainings.get(1).outcome == {"promoted": True}
    assert store.trainings.trained_through(1) == 1
    events = store.jobs.find(kind=JobKind.EVENT)
    assert [event.status.value for event in events] == ["done", "done", "waiting", "dead"]
    assert {event.subject_ids for event in events} == {(7,)}
    store.close()


def test_open_database_of_before_carries_waiting_jobs_and_masks_over(empty_url, make_segment):
    """A database of form 0004: a waiting job of a kind that was renamed, and masks of one image a task."""
    url = _with_driver(empty_url)
    engine = create_engine(url)
    with engine.begin() as connection:
        _run_steps(connection, "0004")
        at = AT if url.startswith("sqlite") else f"{AT}+00"
        job = {"project_id": 1, "action": "connected", "subject_ids": "[]", "attempts": 0, "lapses": 0}
        job |= {"done": 0, "total": 0, "cancel_requested": False, "due_at": at, "created_at": at}
        _insert(connection, "jobs", kind="renewal", status="waiting", **job)
        masks = {"image_key": "0" * 64, "image_uri": "a.png", "height": 32, "width": 48, "approximate": False}
        masks |= {"kept": 1, "changed": 0, "added": 2, "removed": 0}
        text_of_masks = segments_to_text((make_segment(),))
        _insert(connection, "masks", version_id=1, segments=text_of_masks, **masks)
        _insert_annotation(connection, at)
    engine.dispose()
    store = Store(empty_url)
    (job_found,) = store.jobs.find(kind=JobKind.PRELABEL, statuses=[JobStatus.WAITING])
    assert (job_found.name, store.jobs.request(JobKind.PRELABEL, 1)) == ("prelabel-1", 1)
    (correction,) = store.corrections.of(1)
    assert (correction.view, correction.image_index, correction.edits.added) == ("", 0, 2)
    assert len(store.corrections.old_readings(1, reader_version=1, limit=10)) == 1
    assert store.projects.absences() == {}
    store.close()


def test_open_database_of_before_keeps_counts_by_origin(empty_url, make_segment):
    """A database of form 0005: edits without kinds, annotations without their annotator."""
    url = _with_driver(empty_url)
    engine = create_engine(url)
    with engine.begin() as connection:
        _run_steps(connection, "0005")
        at = AT if url.startswith("sqlite") else f"{AT}+00"
        masks = {"image_key": "0" * 64, "image_uri": "a.png", "height": 32, "width": 48, "approximate": False}
        masks |= {"kept": 1, "changed": 3, "added": 2, "removed": 0, "model_version": "maskloop-1-v1"}
        masks |= {"view": "", "image_index": 0, "reader_version": 1}
        _insert(
            connection, "image_masks", version_id=1, segments=segments_to_text((make_segment(),)), **masks
        )
        _insert_annotation(connection, at)
    engine.dispose()
    store = Store(empty_url)
    (edited,) = store.corrections.edited(1)
    assert edited.edits == EditCounts(kept=1, changed=3, added=2)
    (correction,) = store.corrections.of(1)
    assert correction.deleted == ()  # nobody stored which
    assert (edited.edits.changed_unknown, edited.annotator, dict(edited.label_edits)) == (3, None, {})
    store.close()


DISC = np.add.outer(np.square(np.arange(-4, 5)), np.square(np.arange(-4, 5))) <= 16
RECTANGLE = np.ones((5, 7), dtype=bool)


@pytest.mark.parametrize(
    ("approximate", "masks", "boxes"),
    [
        pytest.param(True, [DISC, RECTANGLE], [False, True], id="mask and rectangle"),
        pytest.param(True, [RECTANGLE, RECTANGLE], [True, True], id="rectangles"),
        pytest.param(True, [DISC, DISC], [True, True], id="ellipses or turned ones: unknown which"),
        pytest.param(False, [DISC, RECTANGLE], [False, False], id="a brush may fill its box"),
        pytest.param(True, [], [], id="no segment"),
    ],
)
def test_open_database_of_before_marks_boxes_by_their_form(empty_url, approximate, masks, boxes):
    """A database of form 0016: only of a whole image it is known whether it has boxes."""
    url = _with_driver(empty_url)
    segments = [Segment(mask_hw=one, offset_yx=(3, 4), label="disc") for one in masks]
    engine = create_engine(url)
    with engine.begin() as connection:
        _run_steps(connection, "0016")
        at = AT if url.startswith("sqlite") else f"{AT}+00"
        values = {"image_key": "0" * 64, "image_uri": "a.png", "height": 32, "width": 48, "reader_version": 1}
        values |= {"kept": 1, "changed": 0, "added": 2, "removed": 0, "view": "", "image_index": 0}
        values |= {"version_id": 1, "segments": segments_to_text(tuple(segments)), "approximate": approximate}
        _insert(connection, "image_masks", **values)
        _insert_annotation(connection, at)
    engine.dispose()
    store = Store(empty_url)
    (correction,) = store.corrections.of(1)
    assert [one.is_box for one in correction.segments] == boxes
    for found, given in zip(correction.segments, segments, strict=True):
        assert (found.mask_hw == given.mask_hw).all()
    read_again = store.corrections.old_readings(1, reader_version=1, limit=10)
    assert len(read_again) == approximate  # the annotation says exactly which
    store.close()


def _insert_annotation(connection, at):
    """Store one submitted annotation in its first version."""
    version = {"annotation_id": 70, "project_id": 1, "task_id": 7, "updated_at": at, "state": "submitted"}
    version |= {"said": "{}", "digest": "d", "label_config": "c", "ground_truth": False, "taken_at": at}
    _insert(connection, "annotation_versions", version_id=1, **version)
    row = {"annotation_id": 70, "project_id": 1, "task_id": 7, "split": "train", "version_id": 1}
    _insert(connection, "annotations", **row, updated_at=at, state="submitted")


def _run_steps(connection, target):
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    from maskloop.store import migrations

    steps = ScriptDirectory(str(Path(migrations.__file__).parent))
    context = MigrationContext.configure(
        connection, opts={"fn": lambda revision, _: steps._upgrade_revs(target, revision)}
    )
    context.run_migrations(op=Operations(context))


def test_open_older_database_goes_on_numbering(old_url):
    store = Store(old_url)
    highest = max(job.job_id for job in store.jobs.find())
    assert store.jobs.request(JobKind.SYNC, 1) > highest
    assert store.jobs.find(statuses=[JobStatus.WAITING], kind=JobKind.TRAINING)[0].job_id == 3
    store.close()


def test_open_older_database_leaves_a_copy_of_it(old_url, tmp_path):
    if not old_url.startswith("sqlite"):
        pytest.skip("a PostgreSQL is backed up by whoever runs it")
    Store(old_url).close()
    path = old_url.removeprefix("sqlite:///")
    with sqlite3.connect(f"{path}.before-{HEAD}-was-0001") as copy:
        assert copy.execute("SELECT count(*) FROM corrections").fetchone() == (2,)
    copy.close()


def test_open_new_database_many_at_once_make_it_once(empty_url):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: Store(empty_url), range(4)))
    assert {store.jobs.request(JobKind.SYNC, 1) for store in stores} == {1}
    for store in stores:
        store.close()


def test_open_new_sqlite_file_many_at_once_none_is_told_it_is_locked(tmp_path):
    for number in range(40):  # without waiting, about one in twenty goes wrong
        start, path = Barrier(8), tmp_path / f"{number}.db"

        def connect(_thread: int, start: Barrier = start, path: Path = path) -> str:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                start.wait()
                _tune_sqlite(connection, None)
                return connection.execute("PRAGMA journal_mode").fetchone()[0]

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(connect, range(8))) == {"wal"}


def test_open_newer_database_is_refused(empty_url):
    Store(empty_url).close()
    engine = create_engine(_with_driver(empty_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="form 9999, of a newer maskloop"):
        Store(empty_url)


def test_steps_build_what_the_tables_say(empty_url):
    engine = create_engine(_with_driver(empty_url))
    with engine.begin() as connection:
        bring_up_to_date(connection)
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []
