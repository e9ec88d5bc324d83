"""A real Label Studio for the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskloop_studio.demo.studio import RealStudio

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStudio]:
    """A Label Studio that runs as long as the session."""
    env_dir = Path(os.environ.get("MASKLOOP_STUDIO_ENV") or REPOSITORY / ".venv-studio")
    with RealStudio(tmp_path_factory.mktemp("studio"), env_dir=env_dir) as started:
        yield started
