"""The real Label Studio's API, a headless Chromium, and small pictures to label."""

import contextlib
import io
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from PIL import Image, ImageDraw
from pydantic import SecretStr
from tests.missing import skip_missing

from maskloop.processes import find_free_port
from maskloop.settings import Settings
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.services import Services
from maskloop_studio.serving.app import create_app

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LABEL_CONFIG = """<View><Image name="img" value="$image"/>
<BrushLabels name="brush" toName="img"><Label value="Car" background="#0000ff"/>
<Label value="Tree" background="#00aa00"/></BrushLabels>
<PolygonLabels name="poly" toName="img"><Label value="House" background="#ff0000"/>
<Label value="Car" background="#0000ff"/></PolygonLabels></View>"""
SIZE_HW = (240, 320)


def find_chromium() -> str | None:
    """Return the path of a Chromium on this machine; MASKLOOP_CHROMIUM names one."""
    named = os.environ.get("MASKLOOP_CHROMIUM")
    return named or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@pytest.fixture(scope="session")
def client(studio: RealStudio) -> Iterator[StudioClient]:
    """Its API."""
    api = StudioClient(studio.url, studio.token)
    yield api
    api.close()


@pytest.fixture
def make_project(client: StudioClient) -> Iterator[Callable[..., StudioProject]]:
    """Make projects that are gone after the test."""
    made: list[int] = []

    def make(title: str = "acceptance", label_config: str = LABEL_CONFIG, **fields: Any) -> StudioProject:
        project = client.create_project(title, label_config, **fields)
        made.append(project.id)
        return project

    yield make
    for project_id in made:
        if client.find_project(project_id) is not None:
            client.delete_project(project_id)


@pytest.fixture
def make_task(client: StudioClient) -> Callable[[int], int]:
    """Upload the picture and make a task of it."""

    def make(project_id: int) -> int:
        uri = client.upload_image(project_id, "picture.png", make_picture())
        return client.import_tasks(project_id, [{"data": {"image": uri}}])[0]

    return make


@pytest.fixture
def services(settings: Settings, studio: RealStudio) -> Iterator[Services]:
    """Services of this Label Studio, with a queue in memory that no worker empties."""
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    changes |= {"holdout_fraction": 0.0, "train_quiet_s": 0}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    yield made
    made.close()


@pytest.fixture
def server_url(services: Services) -> Iterator[str]:
    """Our server on loopback."""
    import maskloop.learning.cycle
    import maskloop.learning.training.trainer  # noqa: F401 - the server's thread imports transformers too: not at once

    port = find_free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(services), port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser; skipped where there is none, except in CI.

    Not for the whole session: its driver keeps an event loop running in this thread, and asyncio allows one.
    """
    path = find_chromium()
    if path is None:
        skip_missing("Chromium", "install chromium, or set MASKLOOP_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def studio_database(studio: RealStudio) -> Iterator[sqlite3.Connection]:
    """Open Label Studio's own database, for what its API cannot do; the changes are kept."""
    path = studio.data_dir / "label_studio.sqlite3"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
        yield database
        database.commit()


def make_picture() -> bytes:
    """Return a PNG, 320 wide and 240 high: a disc, a crown with a stem, a block."""
    picture = Image.new("RGB", SIZE_HW[::-1], (228, 230, 224))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 60, 140, 160), fill=(206, 186, 92))
    draw.polygon([(150, 200), (175, 120), (200, 200)], fill=(120, 150, 110))
    draw.rectangle((215, 80, 290, 200), fill=(150, 130, 180))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
