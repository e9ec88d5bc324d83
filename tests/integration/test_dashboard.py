"""Every page with a real loop behind it: figures against the database, actions, bad input, few queries."""

import html
import json
import re
import threading

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import event
from tests.fakes.looped_project import (
    CONFIG,
    PROJECT,
    TITLE,
    fill_rows,
    make_services,
    run_loop,
    take_database_away,
)
from tests.waiting import until

from maskloop.learning.registry import CHAMPION
from maskloop.settings import Settings
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.serving.app import create_app

NAME = f"maskloop-{PROJECT}"
LOGIN = ("ann", "secret")
HERE = ("127.0.0.1", 50000)
BASE = f"/dashboard/projects/{PROJECT}"


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    """Services after two real trainings, with a login."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, basic_auth_user=LOGIN[0], basic_auth_password=SecretStr(LOGIN[1]))
    services = make_services(settings)
    run_loop(services)
    yield services
    services.close()


@pytest.fixture(scope="module")
def client(looped):
    with TestClient(create_app(looped), client=HERE) as opened:
        opened.auth = LOGIN
        # The server's thread imports what a model needs: not while pytest looks at the modules.
        until(lambda: opened.get("/health").json()["model"]["state"] == "ready", 120)
        yield opened


def _pages(services):
    newest = services.registry.newest(NAME, limit=1)[0]
    scores = json.loads((newest.path / "judgement.json").read_text())["challenger"]["images"]
    version, image = f"{BASE}/versions/{newest.number}", scores[0]["image"]
    training = services.store.trainings.of(PROJECT)[-1].training_id
    return [
        "/dashboard",
        "/dashboard/jobs",
        "/dashboard/jobs?show=all",
        "/dashboard/jobs?show=failed",
        f"/dashboard/trainings/{training}",
        f"/dashboard/trainings/{training}/live",
        BASE,
        *(f"{BASE}/{part}" for part in ("edits", "labels", "next", "drift", "work-saved", "versions")),
        version,
        f"{version}/images",
        f"{version}/images?order=fell",
        f"{version}/compare?other=2",
        f"{version}/image?image={image}",
        f"{BASE}/pictures",
        f"{BASE}/pictures?task=201&score=0.2",
        f"{BASE}/pictures/segments?task=201&score=0.2",
    ]


def test_pages_answer_without_markup_of_names(client, looped):
    for path in _pages(looped):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "<script>" not in answer.text, path
        assert "'none'" in answer.headers["Content-Security-Policy"], path
    assert (
        html.escape(TITLE, quote=False).replace('"', "&#34;").replace("'", "&#39;") in client.get(BASE).text
    )


def test_pages_load_own_files_only(client, looped):
    for path in _pages(looped):
        loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]*)"', client.get(path).text)
        assert [one for one in loaded if not re.match(r"/[^/]", one)] == [], path
        statuses = {one: client.get(html.unescape(one)).status_code for one in set(loaded)}
        assert set(statuses.values()) <= {200}, statuses


def _cells(page, heading):
    row = re.search(
        rf"<th scope=\"row\">(?:<a[^>]*>)?{re.escape(heading)}(?:</a>)?</th>(.*?)</tr>", page, re.DOTALL
    )
    return re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.DOTALL)


def test_project_quality_is_that_of_the_outcomes(client, looped):
    page = client.get(BASE).text
    for training in looped.store.trainings.of(PROJECT):
        outcome = training.outcome
        metrics, decision = outcome["challenger_metrics"], outcome["decision"]
        cells = _cells(page, outcome["version"])
        assert cells[0].split()[0] == outcome["release"]
        low, high = (decision["before"] + bound for bound in decision["interval"])
        assert cells[1:] == [
            f"{decision['after']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{decision['before']:.3f}",
            *(f"{metrics[name]:.3f}" for name in ("ap50", "pq", "miou")),
            str(outcome["holdout_images"]),
        ]


def test_project_counts_are_those_of_the_database(client, looped):
    page, store = client.get(BASE).text, looped.store
    train, holdout = (store.corrections.count(PROJECT, split=split) for split in ("train", "holdout"))
    assert (train, holdout) == (9, 6)
    assert f"{train} to learn from, {holdout} to judge by, 0 skipped, 0 set aside" in page
    assert "4 more annotations start the next training (1 of 5)" in page
    assert "it has judged 2 trainings" in page


def test_project_edits_are_those_of_the_corrections(client, looped):
    page = client.get(f"{BASE}/edits").text
    edited = [one for one in looped.store.corrections.edited(PROJECT) if one.model_version == f"{NAME}-v1"]
    sums = [str(sum(getattr(one.edits, kind) for one in edited)) for kind in ("kept", "nudged", "redrawn")]
    assert _cells(page, f"{NAME}-v1")[:4] == [str(len(edited)), *sums]
    drawn = json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', page)[1]))
    assert drawn["series"][0] == {"label": "kept", "values": [8, 8, 2]}


def test_next_tasks_come_in_order_with_reasons(client):
    page = client.get(f"{BASE}/next").text
    assert page.index("drawn by chance") < page.index("unsure which class (75%)")
    assert 'href="http://studio.test/projects/7/data?task=202"' in page


def test_version_shows_the_gates_decision(client, looped):
    newest = looped.registry.newest(NAME, limit=1)[0]
    metadata = looped.registry.metadata(NAME, newest.number)
    page = client.get(f"{BASE}/versions/{newest.number}").text
    gate = json.loads(metadata["gate"])
    assert html.escape(metadata["decision"]) in page
    assert (
        f"Gain {gate['gain']:+.3f}, interval {gate['interval'][0]:+.3f} to {gate['interval'][1]:+.3f}" in page
    )
    judged = json.loads((newest.path / "judgement.json").read_text())["challenger"]["images"]
    assert page.count('<circle class="') == len(judged) + 1, "each image that was judged, and the gain"


def test_layers_have_the_size_of_the_image(client, looped):
    from io import BytesIO

    from PIL import Image

    newest = looped.registry.newest(NAME, limit=1)[0]
    query = "?image=7/101/1101"
    addresses = [f"image.file{query}", f"annotator.png{query}", f"layer.png{query}&of={newest.number}"]
    addresses.append(f"layer.png{query}&of=1&side=champion")
    for address in addresses:
        answer = client.get(f"{BASE}/versions/{newest.number}/{address}")
        assert answer.status_code == 200, (address, answer.text)
        assert Image.open(BytesIO(answer.content)).size == (48, 48)
    picture = client.get(f"{BASE}/pictures/layer.png?task=201&score=0.1").content
    assert Image.open(BytesIO(picture)).size == (48, 48)


def test_pictures_lower_threshold_shows_more_and_gives_it_as_settings(client):
    few, many = (
        int(
            re.search(
                r"<p>(\d+) segments", client.get(f"{BASE}/pictures/segments?task=201&score={score}").text
            )[1]
        )
        for score in (0.99, 0.0)
    )
    assert few < many
    page = client.get(f"{BASE}/pictures?task=201&score=0.25").text
    assert "MASKLOOP_SCORE_THRESHOLD=0.25" in page
    assert html.escape('"score_threshold": 0.25').replace("&quot;", "&#34;") in page


BAD = [
    pytest.param("/dashboard/projects/99", 404, "maskloop connect 99", id="project not connected"),
    pytest.param("/dashboard/projects/0", 404, "list of projects", id="project 0"),
    pytest.param(f"/dashboard/projects/{10**30}", 404, "list of projects", id="huge project"),
    pytest.param("/dashboard/projects/<script>", 404, "list of projects", id="markup"),
    pytest.param("/dashboard/projects/99/edits", 404, "maskloop connect", id="edits of no project"),
    pytest.param(f"{BASE}/versions/999", 404, "models list", id="no version"),
    pytest.param(f"{BASE}/versions/999/images", 404, "models list", id="images of no version"),
    pytest.param(f"{BASE}/versions/2/image?image=1/2/3", 404, "version&#39;s page", id="foreign image"),
    pytest.param(f"{BASE}/versions/2/image?image=../../etc", 404, "version&#39;s page", id="path"),
    pytest.param(f"{BASE}/versions/2/image.file?image=%00", 404, "version&#39;s page", id="zero byte"),
    pytest.param(f"{BASE}/versions/2/layer.png?image=7/101/1101&of=999", 404, "models list", id="no layer"),
    pytest.param(f"{BASE}/pictures/layer.png?task=999", 404, "Data Manager", id="no task"),
    pytest.param(f"{BASE}/pictures?task=1&score=nan", 404, "list of projects", id="NaN"),
    pytest.param(f"{BASE}/pictures/image.file?task=201&image=5", 404, "reload", id="no such image"),
    pytest.param("/dashboard/trainings/999999", 404, "list of jobs", id="no training"),
    pytest.param("/dashboard/jobs?before=-1", 404, "list of projects", id="negative number"),
    pytest.param("/dashboard?page=999", 404, "list of projects", id="page beyond the last"),
    pytest.param("/dashboard/static/../../pyproject.toml", 404, "", id="file outside"),
]


@pytest.mark.parametrize(("path", "status", "words"), BAD)
def test_bad_address_is_a_page_that_says_so(client, path, status, words):
    answer = client.get(path)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert "<script>" not in answer.text


def _actions(services):
    dead = services.store.jobs.request(JobKind.SYNC, PROJECT, "away")
    version = services.registry.newest(NAME, limit=1)[0].number
    return [
        *(f"/dashboard/jobs/{dead}/{action}" for action in ("retry", "cancel")),
        *(f"{BASE}/{action}" for action in ("train", "rollback", f"versions/{version}/promote")),
    ]


def test_database_away_every_page_and_action_says_so(client, looped, monkeypatch):
    pages, actions, form = _pages(looped), _actions(looped), _form(client)
    champion = looped.registry.alias(NAME, CHAMPION)
    take_database_away(monkeypatch)
    answers = {path: client.get(path) for path in pages}
    answers |= {path: client.post(path, data=form) for path in actions}
    told = {path: answer.status_code for path, answer in answers.items()}
    assert told == dict.fromkeys(told, 503)
    assert [path for path, answer in answers.items() if "&lt;b&gt;none&lt;/b&gt;" not in answer.text] == []
    fragment = client.get(f"{BASE}/edits", headers={"HX-Request": "true"})
    assert (fragment.status_code, "check it" in fragment.text) == (200, True), "htmx shows successes only"
    assert looped.registry.alias(NAME, CHAMPION) == champion, "nothing was done that cannot be recorded"


def test_damaged_version_is_named_and_cannot_be_promoted(client, looped):
    version = looped.registry.peek(NAME, 2)
    weights = next(version.path.glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    try:
        page = client.get(f"{BASE}/versions/2").text
        assert "as it was registered" in page
        assert "Promote" not in page.split("Card")[0].split("act")[-1] or "<button" not in page
        answer = client.post(f"{BASE}/versions/2/promote", data=_form(client))
        assert answer.status_code == 500
        assert "rollback" in answer.text
        layer = client.get(f"{BASE}/versions/3/layer.png?image=7/101/1101&of=2")
        assert layer.status_code == 500
    finally:
        weights.write_bytes(content)


def _form(client, **fields):
    token = re.search(r'name="token" value="([0-9a-f]+)"', client.get(BASE).text)[1]
    return {"token": token, **fields}


def test_promote_and_roll_back_change_the_champion_with_reason_and_user(client, looped):
    before = looped.registry.alias(NAME, CHAMPION)
    answer = client.post(f"{BASE}/versions/2/promote", data=_form(client, reason="looks <b>good</b>"))
    assert answer.status_code == 200, answer.text
    assert "champion now" in answer.text
    assert looped.registry.alias(NAME, CHAMPION) == 2
    assert looped.registry.history(NAME)[-1].reason == "looks <b>good</b> (dashboard, ann)"
    assert "&lt;b&gt;good" in answer.text
    client.post(f"{BASE}/rollback", data=_form(client))
    assert looped.registry.alias(NAME, CHAMPION) == before
    rolled, promoted, *_ = looped.store.audit.newest(int(NAME.rpartition("-")[2]), limit=5)
    for record, action in ((rolled, "rolled_back"), (promoted, "promoted")):
        assert (record.entry.action, record.entry.actor.kind, record.entry.actor.name) == (
            action,
            "dashboard",
            "ann",
        )


def test_failed_job_is_shown_with_its_reason_and_retried(client, looped):
    jobs = looped.store.jobs
    number = jobs.request(JobKind.SYNC, PROJECT, "<i>schedule</i>")
    jobs.claim(number, "host:12:ab")
    page = client.get("/dashboard/jobs").text
    assert "<td>host</td><td>12</td>" in page, "the lease"
    jobs.fail(number, "host:12:ab", "broken <b>image</b>", retry=False)
    page = client.get("/dashboard/jobs?show=failed").text
    assert "broken &lt;b&gt;image&lt;/b&gt;" in page
    assert "Look at the failed jobs" in client.get(BASE).text
    answer = client.post(f"/dashboard/jobs/{number}/retry", data=_form(client))
    assert "due now" in answer.text
    assert jobs.get(number).status is JobStatus.WAITING
    client.post(f"/dashboard/jobs/{number}/cancel", data=_form(client))
    assert jobs.get(number).status is JobStatus.CANCELLED
    recorded = [one.entry for one in looped.store.audit.newest(PROJECT, limit=2)]
    assert [(one.action, one.actor.name, one.subject) for one in recorded] == [
        ("cancelled", "ann", f"sync-{number}"),
        ("retried", "ann", f"sync-{number}"),
    ]


def test_running_training_shows_how_it_goes(client, looped):
    store = looped.store
    answer = client.post(f"{BASE}/train", data=_form(client))
    number = int(re.search(r"Training (\d+)", answer.text)[1])
    store.jobs.claim(number, "host:1:a")
    details = {"loss": 1.25, "eta_s": 300.0, "images_per_s": 3.5, "memory_mb": 812.0}
    store.jobs.renew(number, "host:1:a", done=4, total=10, details=details)
    page = client.get(f"/dashboard/trainings/{number}/live").text
    assert 'hx-trigger="every 3s"' in page
    assert all(words in page for words in ("step 4 of 10", "1.250", "5 min", "3.50", "812 MB"))
    client.post(f"/dashboard/jobs/{number}/cancel", data=_form(client))
    store.jobs.end_cancelled(number, "host:1:a")
    page = client.get(f"/dashboard/trainings/{number}/live").text
    assert "hx-trigger" not in page


@pytest.mark.parametrize("path", ["/dashboard/jobs/1/retry", f"{BASE}/versions/2/promote", f"{BASE}/train"])
def test_action_without_token_is_refused(client, looped, path):
    jobs = looped.store.jobs.counts()
    answer = client.post(path, data={"token": "0" * 64})
    assert answer.status_code == 403
    assert looped.store.jobs.counts() == jobs


def test_action_with_a_long_form_is_refused(client):
    answer = client.post(f"{BASE}/train", data=_form(client, reason="x" * 20_000))
    assert answer.status_code == 413


@pytest.fixture
def open_services(settings):
    services = make_services(settings)
    yield services
    services.close()


def test_without_login_pages_are_read_only_and_for_this_machine(open_services):
    app = create_app(open_services)
    with TestClient(app, client=HERE) as here:
        page = here.get("/dashboard").text
        assert "No project is connected yet" in page
        assert "maskloop connect 7" in page
        open_services.store.projects.save(PROJECT, CONFIG)
        page = here.get(BASE).text
        assert "Annotate in Label Studio" in page, "an empty project says what to do next"
        assert '<form method="post"' not in page
        assert here.post(f"{BASE}/train").status_code == 403
        assert here.get(f"{BASE}/pictures").status_code == 404
    away = TestClient(app, client=("192.0.2.7", 50000))
    assert away.get("/dashboard").status_code == 403
    assert away.get(BASE).status_code == 403


class _Queries:
    """Counts the statements of a store."""

    def __init__(self, store):
        self.count = 0
        event.listen(store.overview._sessions._engine, "before_cursor_execute", self._note)

    def _note(self, *_arguments):
        # The model directory asks as well, from a thread of its own, every two seconds.
        self.count += threading.current_thread().name.startswith("request")


@pytest.mark.parametrize("page", ["", "/edits", "/labels", "/next", "/versions", "/work-saved"])
def test_project_pages_make_as_many_queries_for_ten_times_the_rows(open_services, page, home):
    counted = []
    for versions, tasks in ((3, 20), (30, 200)):
        services = make_services(open_services.settings.model_copy(update={"home": home / str(tasks)}))
        services.store.projects.save(PROJECT, CONFIG)
        fill_rows(services.store, versions=versions, tasks=tasks)
        with TestClient(create_app(services), client=HERE) as here:
            here.get(f"{BASE}{page}")  # the champion's look-ups of the server's start are over
            queries = _Queries(services.store)
            assert here.get(f"{BASE}{page}").status_code == 200
            counted.append(queries.count)
    assert counted[0] == counted[1] <= 25


def test_projects_page_makes_as_many_queries_for_twenty_projects_as_for_one(open_services):
    store = open_services.store
    with TestClient(create_app(open_services), client=HERE) as here:
        counted = []
        for numbers in (range(1, 2), range(2, 41)):
            for number in numbers:
                store.projects.save(number, CONFIG)
            queries = _Queries(store)
            page = here.get("/dashboard").text
            counted.append(queries.count)
        assert "Page 1 of 2" in page
        assert len(re.findall('class="card"', here.get("/dashboard?page=2").text)) == 20
    assert counted[0] == counted[1]


def test_versions_of_a_project_are_paged(client, looped, monkeypatch):
    newest = looped.registry.newest(NAME, limit=1)[0]
    from dataclasses import replace

    many = [replace(newest, number=number) for number in range(10_000, 0, -1)]
    asked = []

    def page(_name, *, limit, below=None):
        asked.append(limit)
        return [one for one in many if below is None or one.number < below][:limit]

    monkeypatch.setattr(looped.registry, "newest", page)
    first = client.get(f"{BASE}/versions").text
    assert f"{NAME}-v10000<" in first
    older = re.search(r"versions\?below=(\d+)", first)[1]
    assert older == "9951"
    assert f"{NAME}-v9950<" in client.get(f"{BASE}/versions?below={older}").text
    assert max(asked) <= 51
