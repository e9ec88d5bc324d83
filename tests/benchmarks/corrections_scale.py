"""How questions to the database grow with its corrections: `python -m tests.benchmarks.corrections_scale`.

Fills SQLite and PostgreSQL with made-up rows, by the database itself, and asks through the store's own books.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from tests.services import PostgresServer

from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind, JobStatus, NewEvent
from maskloop.store.segments import segments_to_text
from maskloop.types import Segment

SIZES = (10_000, 100_000, 1_000_000)
REPEATS = 15
PROJECT = 1  # nine of ten rows; the others are another project's
STREAMED = 1000
DEAD = 50
AT = datetime(2026, 1, 1, tzinfo=UTC)
SAID = json.dumps(
    {"lead_time": 3.5, "result": [{"id": "r1", "type": "brushlabels", "value": {"rle": [0] * 60}}]}
)

NUMBERS = """WITH RECURSIVE numbers(i) AS
    (SELECT CAST(:first AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)"""
FILL = {
    "annotations": """(annotation_id, project_id, task_id, split, version_id, updated_at, state)
        {numbers} SELECT i, {project}, i, {split}, i, {at}, 'submitted' FROM numbers""",
    "annotation_versions": """(version_id, annotation_id, project_id, task_id, updated_at, state,
            said, digest, label_config, lead_time_s, ground_truth, taken_at)
        {numbers} SELECT i, i, {project}, i, {at}, 'submitted', :said, 'd', 'c', 3.5, {false}, {at}
        FROM numbers""",
    "masks": """(version_id, image_key, image_uri, height, width, segments, kept, changed, added, removed,
            approximate, model_version)
        {numbers} SELECT i, 'k' || i, 'u' || i, 64, 64, :segments, 1, 0, 0, 0, {false}, 'maskloop-1-v1'
        FROM numbers""",
    "jobs": """(job_id, kind, project_id, action, subject_ids, key, status, attempts, lapses, due_at,
            created_at, finished_at, done, total, cancel_requested)
        {numbers} SELECT i, 'event', {project}, 'ANNOTATION_CREATED', '[1]', 'k' || i,
            CASE WHEN i % :dead_every = 0 THEN 'dead' ELSE 'done' END, 1, 0, {at}, {at}, {at}, 0, 0, {false}
        FROM numbers""",
}


def fill(connection: Connection, first: int, last: int) -> None:
    """Add corrections and done events with the numbers from first to last."""
    postgres = connection.dialect.name == "postgresql"
    moment = "TIMESTAMPTZ '2026-01-01 00:00:00+00'" if postgres else "'2026-01-01 00:00:00.000000'"
    parts = {
        "numbers": NUMBERS,
        "project": "CASE WHEN i % 10 = 0 THEN 2 ELSE 1 END",
        "split": "CASE WHEN i % 5 = 0 THEN 'holdout' ELSE 'train' END",
        "at": moment,
        "false": "FALSE" if postgres else "0",
    }
    square = Segment(mask_hw=np.ones((8, 8), dtype=np.bool_), offset_yx=(3, 4), label="disc", score=1.0)
    values = {
        "first": first,
        "last": last,
        "said": SAID,
        "segments": segments_to_text((square,)),
        "dead_every": max((last - first + 1) // DEAD, 1),
    }
    for table, form in FILL.items():
        statement = f"INSERT INTO {table} {form.format(**parts)}"
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute(text(statement), used)
    beyond = 10**9 + last  # what comes later is numbered from here
    for table, column in (("annotation_versions", "version_id"), ("jobs", "job_id")):
        if postgres:
            counter = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {beyond})"
        else:
            counter = f"UPDATE sqlite_sequence SET seq = {beyond} WHERE name = '{table}'"
        connection.execute(text(counter))


def milliseconds(act: Callable[[], object], *, repeats: int = REPEATS) -> float:
    """Return the median, after one run that warms up."""
    act()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def peak_mib(act: Callable[[], object]) -> float:
    """Return the most memory of Python's that was taken at once."""
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def questions(store: Store, count: int) -> dict[str, float]:
    """Return how long each question takes."""
    fresh = itertools.count(10**9)
    again = itertools.count(1)

    def take(annotation_id: int) -> None:
        at = AT + timedelta(seconds=next(again))
        said = AnnotationSnapshot(
            annotation_id=annotation_id,
            project_id=PROJECT,
            task_id=annotation_id,
            updated_at=at,
            state="submitted",
            content=json.loads(SAID),
            label_config="<View/>",
            split="train",
            read_at=at,
        )
        assert store.annotations.save(said).version_id is not None

    def event() -> None:
        number = next(fresh)
        (job_id,) = store.jobs.add_events(
            [NewEvent(key=f"{count}-{number}", action="A", project_id=1, subject_ids=(1,))]
        )
        assert job_id is not None
        assert store.jobs.claim(job_id, "bench") is not None
        assert store.jobs.finish(job_id, "bench")

    newest = store.corrections.last_version(PROJECT)
    timed = {
        "keep a new annotation": milliseconds(lambda: take(10**8 * len(str(count)) + next(fresh) - 10**9)),
        "keep a new version": milliseconds(lambda: take(count // 2 + 1)),
        "event: keep, claim, finish": milliseconds(event),
        "count since": milliseconds(
            lambda: store.corrections.count(PROJECT, split="train", after_version=newest - 20)
        ),
        "newest version": milliseconds(lambda: store.corrections.last_version(PROJECT), repeats=5),
        f"stream {STREAMED}": milliseconds(
            lambda: sum(1 for _ in itertools.islice(store.corrections.stream(PROJECT), STREAMED)), repeats=3
        ),
        f"stream {STREAMED} of one split": milliseconds(
            lambda: sum(
                1 for _ in itertools.islice(store.corrections.stream(PROJECT, split="train"), STREAMED)
            ),
            repeats=3,
        ),
        "all known (per 1,000)": milliseconds(lambda: store.annotations.known(PROJECT), repeats=1)
        * 1000
        / count,
        "without masks": milliseconds(lambda: store.corrections.underived(PROJECT), repeats=3),
        "dead-letter list": milliseconds(lambda: store.jobs.find(statuses=[JobStatus.DEAD])),
        "dead-letter list of a project": milliseconds(
            lambda: store.jobs.find(statuses=[JobStatus.DEAD], project_id=PROJECT, kind=JobKind.EVENT)
        ),
        "due": milliseconds(store.jobs.due),
        "counts": milliseconds(store.jobs.counts, repeats=3),
    }
    memory = {
        "MiB: stream 5,000": peak_mib(
            lambda: sum(1 for _ in itertools.islice(store.corrections.stream(PROJECT), 5 * STREAMED))
        ),
        "MiB: all known": peak_mib(lambda: store.annotations.known(PROJECT)),
    }
    return timed | memory


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Give the address of an empty database."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/scale.db"
    else:
        with PostgresServer(durable=True) as server:
            yield server.url(server.create("scale"))


def measure(kind: str, sizes: tuple[int, ...]) -> dict[int, dict[str, float]]:
    """Fill one kind of database step by step and ask at each step."""
    found: dict[int, dict[str, float]] = {}
    with database(kind) as url:
        store = Store(url)
        engine = create_engine(url)
        first = 1
        for size in sizes:
            started = time.perf_counter()
            with engine.begin() as connection:
                fill(connection, first, size)
            if kind == "postgresql":  # as autovacuum would soon
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text("VACUUM ANALYZE"))
            print(f"{kind}: filled to {size} in {time.perf_counter() - started:.0f} s", flush=True)
            found[size] = questions(store, size)
            first = size + 1
        engine.dispose()
        store.close()
    return found


def main() -> None:
    """Print a table, and write JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", default=",".join(map(str, SIZES)), help="numbers of corrections, ascending"
    )
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = tuple(int(size) for size in arguments.sizes.split(","))
    kinds = arguments.databases.split(",")
    found = {kind: measure(kind, sizes) for kind in kinds}
    print(f"\nmilliseconds, median; Python {platform.python_version()}, {platform.machine()}")
    header = [f"{kind} {size:,}" for kind in kinds for size in sizes]
    print(f"{'':<32}" + "".join(f"{name:>22}" for name in header))
    for question in found[kinds[0]][sizes[0]]:
        values = [found[kind][size][question] for kind in kinds for size in sizes]
        print(f"{question:<32}" + "".join(f"{value:>22.2f}" for value in values))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
