"""Factories for the values that travel; seeded and tiny."""

import gc
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

# Before torch is imported anywhere: two cores that spin for each other are slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MASKLOOP_OPENVINO", "off")  # else every server that a test starts exports its model
if "PYTEST_XDIST_WORKER" in os.environ:  # the other worker has the other core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from maskloop.settings import Settings
from maskloop.store.database import Store
from maskloop.store.jobs import NewEvent
from maskloop.types import BoolMask, Correction, EditCounts, Segment

from .fakes.events import new_event
from .missing import skip_missing
from .services import TEMPLATE, PostgresServer, RedisServer, find_postgres, find_redis

pytest_plugins = ["tests.form_table", "tests.two_workers", "tests.studio_start"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while every test module is imported, and never again in what they imported."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def make_segment() -> Callable[..., Segment]:
    def make(
        *,
        size: tuple[int, int] = (8, 10),
        offset: tuple[int, int] = (2, 3),
        label: str = "disc",
        score: float = 1.0,
    ) -> Segment:
        mask: BoolMask = np.ones(size, dtype=np.bool_)
        return Segment(mask_hw=mask, offset_yx=offset, label=label, score=score)

    return make


@pytest.fixture
def make_correction(make_segment: Callable[..., Segment]) -> Callable[..., Correction]:
    def make(**changes: object) -> Correction:
        values: dict[str, object] = {
            "project_id": 1,
            "task_id": 7,
            "annotation_id": 70,
            "updated_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            "image_key": "0" * 64,
            "size_hw": (32, 48),
            "segments": (make_segment(),),
            "edits": EditCounts(kept=1, added=2),
            "lead_time_s": 3.5,
            "model_version": "maskloop-1-v1",
        }
        return Correction(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_event() -> Callable[..., NewEvent]:
    return new_event


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(("MASKLOOP_", "LABEL_STUDIO_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASKLOOP_OPENVINO", "off")
    return Settings(home=home)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the session; skipped where there is none, except in CI."""
    if find_postgres() is None:
        skip_missing("PostgreSQL", "install postgresql")
    with PostgresServer() as server:
        Store(server.url(server.create(TEMPLATE))).close()
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real Redis for the session, to be emptied by those who use it; skipped where there is none."""
    if find_redis() is None:
        skip_missing("Redis", "install redis-server")
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """The address of a new database, of each kind that maskloop runs on."""
    if request.param == "sqlite":
        yield settings.resolved_database_url
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()
