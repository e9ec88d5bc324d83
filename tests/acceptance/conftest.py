"""A real Label Studio for the session, a headless Chromium, and small pictures to label."""

import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.labelstudio.client import StudioClient, StudioProject

REPOSITORY = Path(__file__).parents[2]
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
FORM_TABLE = pytest.StashKey[list[tuple[Any, ...]]]()
FORM_HEADER = ("family", "task", "form", "segments", "mean IoU", "min IoU", "with the mask")


def find_chromium() -> str | None:
    """Return the path of a Chromium on this machine; MASKLOOP_CHROMIUM names one."""
    named = os.environ.get("MASKLOOP_CHROMIUM")
    return named or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def studio_env_dir() -> Path:
    """Return where Label Studio is installed, or will be."""
    return Path(os.environ.get("MASKLOOP_STUDIO_ENV") or REPOSITORY / ".venv-studio")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how well masks came back from Label Studio in each form."""
    rows = config.stash.get(FORM_TABLE, [])
    if not rows:
        return
    terminalreporter.section("through Label Studio and back: IoU with what the form can say")
    line = "{:<12} {:<9} {:<17} {:>8} {:>9} {:>8} {:>14}"
    terminalreporter.write_line(line.format(*FORM_HEADER))
    for *names, count, mean, least, with_mask in rows:
        figures = ("-" if math.isnan(figure) else f"{figure:.4f}" for figure in (mean, least, with_mask))
        terminalreporter.write_line(line.format(*names, count, *figures))


@pytest.fixture(scope="session")
def form_table(pytestconfig: pytest.Config) -> list[tuple[Any, ...]]:
    """Rows for the table at the end: FORM_HEADER, IoUs from 0 to 1, NaN for none."""
    return pytestconfig.stash.setdefault(FORM_TABLE, [])


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStudio]:
    """A Label Studio that runs as long as the session."""
    with RealStudio(tmp_path_factory.mktemp("studio"), env_dir=studio_env_dir()) as started:
        yield started


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser; skipped where there is none, except in CI.

    Not for the whole session: its driver keeps an event loop running in this thread, and asyncio allows one.
    """
    path = find_chromium()
    if path is None:
        reason = "no Chromium on the PATH (install chromium, or set MASKLOOP_CHROMIUM)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


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
