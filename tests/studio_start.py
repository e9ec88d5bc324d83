"""A pytest plugin: one real Label Studio for the session, which starts while tests that need none run."""

import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from maskloop_studio.demo.studio import RealStudio

from .paths import STUDIO_ENV
from .two_workers import STUDIO_FOLDERS

__all__: list[str] = []

_STARTING = pytest.StashKey[Future[RealStudio]]()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")  # of pytest-xdist: each of them has all tests, and runs a part


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one process, run the tests that need a Label Studio last."""
    if not _is_worker(config):
        items.sort(key=lambda item: item.nodeid.startswith(STUDIO_FOLDERS))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to start it where a chosen test needs it."""
    config = session.config
    items = (item for item in session.items if item.nodeid.startswith(STUDIO_FOLDERS))
    needed = any("studio" in getattr(item, "fixturenames", ()) for item in items)
    if needed and not _is_worker(config) and not config.option.collectonly:
        _start(config)


def _start(config: pytest.Config) -> Future[RealStudio]:
    folder = Path(tempfile.mkdtemp(prefix="maskloop-studio-"))
    pool = ThreadPoolExecutor(1, thread_name_prefix="studio-start")
    config.stash[_STARTING] = started = pool.submit(RealStudio(folder, env_dir=STUDIO_ENV).start)
    pool.shutdown(wait=False)
    return started


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End it, also where no test came to use it."""
    started = session.config.stash.get(_STARTING, None)
    if started is not None and started.exception() is None:
        started.result().stop()
        shutil.rmtree(started.result().data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def studio(pytestconfig: pytest.Config) -> RealStudio:
    """One real Label Studio for the session; its environment is made first where it is missing."""
    return (pytestconfig.stash.get(_STARTING, None) or _start(pytestconfig)).result()
