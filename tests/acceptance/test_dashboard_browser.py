"""The pages in a real browser: no foreign request, no script error, nothing serious for axe-core, 360 px."""

import threading
import time
from urllib.parse import urlsplit

import pytest
import uvicorn
from pydantic import SecretStr
from tests.fakes.looped_project import PROJECT, add_curation, make_services, run_loop
from tests.waiting import until

from maskloop.processes import find_free_port
from maskloop.settings import Settings
from maskloop.store.jobs import JobKind
from maskloop_studio.serving.app import create_app

pytestmark = [pytest.mark.browser]

NAME = f"maskloop-{PROJECT}"
BASE = f"/dashboard/projects/{PROJECT}"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), basic_auth_user="ann", basic_auth_password=SecretStr("secret")
    )
    services = make_services(settings)
    run_loop(services, trainings=1)
    add_curation(services)
    running = services.store.jobs.request(JobKind.TRAINING, PROJECT, "runs")
    services.store.jobs.claim(running, "host:1:a", lease_s=3600)
    services.store.jobs.renew(
        running, "host:1:a", done=3, total=9, details={"loss": 1.5, "eta_s": 60.0}, lease_s=3600
    )
    services.running_training = running
    yield services
    services.close()


@pytest.fixture(scope="module")
def server(looped):
    port = find_free_port()
    made = uvicorn.Server(uvicorn.Config(create_app(looped), port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=made.run)
    thread.start()
    while not made.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    made.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def open_page(chromium, server):
    """Return a function that opens a page of a width and scheme, and the list of what went wrong."""
    contexts = []

    def start(width=1100, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            http_credentials={"username": "ann", "password": "secret"},
        )
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.set_default_timeout(60_000)
        host = urlsplit(server).netloc
        page.on("request", lambda one: urlsplit(one.url).netloc != host and wrong.append(one.url))
        page.on("response", lambda one: one.status >= 400 and wrong.append((one.status, one.url)))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda one: one.type in ("error", "warning") and wrong.append(one.text))
        return page, wrong

    yield start
    for context in contexts:
        context.close()


def _wait(page, expression):
    # Not wait_for_function: it evaluates texts inside the page, which the policy forbids.
    until(lambda: page.evaluate(expression), 240)


def _paths(services):
    version = f"{BASE}/versions/2"
    return [
        "/dashboard",
        BASE,
        f"{BASE}/versions",
        version,
        f"{version}/images",
        f"{version}/compare?other=1",
        f"{version}/image?image={PROJECT}/101/1101",
        f"{BASE}/pictures?task=201&score=0.2",
        f"{BASE}/review",
        f"{BASE}/images",
        f"{BASE}/annotators",
        f"{BASE}/audit",
        "/dashboard/projects/0/audit",
        "/dashboard/jobs?show=all",
        f"/dashboard/trainings/{services.running_training}",
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_pages_are_clean_in_a_browser(open_page, server, looped, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page, wrong = open_page(width, scheme)
    axe, found = Axe(), {}
    for path in _paths(looped):
        page.goto(f"{server}{path}")
        _wait(page, "!document.querySelector('.lazy')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        findings = axe.run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in findings if one["impact"] in SERIOUS]
        if serious:
            found[path] = serious
    assert found == {}
    assert wrong == []


def test_project_page_draws_its_charts(open_page, server):
    page, _ = open_page()
    page.goto(f"{server}{BASE}")
    _wait(page, "document.querySelectorAll('.plot canvas').length === 5")


def test_viewer_zooms_by_keys_and_shows_layers(open_page, server):
    page, wrong = open_page()
    page.goto(f"{server}{BASE}/versions/2/image?image={PROJECT}/101/1101")
    layers = page.locator(".layers")
    _wait(page, "document.querySelector('.layers').style.transform.includes('scale')")
    before = layers.evaluate("one => new DOMMatrix(getComputedStyle(one).transform).a")
    page.locator(".viewer").focus()
    page.keyboard.press("+")
    assert layers.evaluate("one => new DOMMatrix(getComputedStyle(one).transform).a") > before
    page.keyboard.press("1")
    assert layers.evaluate("one => new DOMMatrix(getComputedStyle(one).transform).a") == pytest.approx(1)
    page.check("[data-layer=champion]")
    _wait(page, "document.querySelector('[data-side=champion]').naturalWidth === 48")
    assert wrong == []


def test_training_page_follows_and_is_cancelled_by_keyboard(open_page, server, looped):
    page, wrong = open_page()
    page.goto(f"{server}/dashboard/trainings/{looped.running_training}")
    looped.store.jobs.renew(looped.running_training, "host:1:a", done=7, total=9, lease_s=3600)
    _wait(page, "document.body.textContent.includes('step 7 of 9')")
    page.get_by_role("button", name="Cancel this training").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".notice")
    assert looped.store.jobs.get(looped.running_training).cancel_requested
    assert wrong == []


def test_slider_draws_again_and_changes_the_settings(open_page, server):
    page, wrong = open_page()
    page.goto(f"{server}{BASE}/pictures?task=201")
    page.locator("#slider-score").focus()
    page.keyboard.press("Home")
    _wait(page, "document.querySelector('#as-settings').textContent.includes('SCORE_THRESHOLD=0\\n')")
    assert wrong == []
