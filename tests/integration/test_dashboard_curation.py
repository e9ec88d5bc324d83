"""Pages of review, duplicates, annotators and audit: figures against the database, decisions, bad input."""

import html
import io
import re

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import text
from tests.fakes.looped_project import (
    CONFIG,
    PROJECT,
    add_curation,
    annotate,
    make_services,
    take_database_away,
)

from maskloop.settings import Settings
from maskloop.store.audit import INSTALLATION, Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.drifts import DriftState
from maskloop.store.reviews import Verdict
from maskloop_studio.projects.training import ensure_champion
from maskloop_studio.serving.app import create_app

LOGIN = ("ann", "secret")
HERE = ("127.0.0.1", 50000)
BASE = f"/dashboard/projects/{PROJECT}"
MARKUP = "<script>alert('who')</script>"


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        basic_auth_user=LOGIN[0],
        basic_auth_password=SecretStr(LOGIN[1]),
    )
    services = make_services(settings)
    services.store.projects.save(PROJECT, CONFIG)
    ensure_champion(PROJECT, registry=services.registry, settings=services.settings)
    for seed in (1, 2, 3):
        annotate(services, seed, model_version=f"maskloop-{PROJECT}-v1")
    services.numbers = add_curation(services)
    for action, reason in ((AuditAction.PROMOTED, MARKUP), (AuditAction.EXPORTED, "coco")):
        services.store.audit.append(
            AuditEntry(
                project_id=PROJECT,
                action=action,
                actor=Actor(kind=ActorKind.COMMAND_LINE, name=MARKUP),
                subject=f"maskloop-{PROJECT}-v1",
                reason=reason,
                facts={"champion_metrics": {"ap50": 0.25}, "challenger_metrics": {"ap50": 0.5}},
            )
        )
    yield services
    services.close()


@pytest.fixture(scope="module")
def client(curated):
    # No lifespan: no model answers here.
    opened = TestClient(create_app(curated), client=HERE)
    opened.auth = LOGIN
    return opened


def _get(client, path, status=200):
    answer = client.get(path)
    assert answer.status_code == status, (path, answer.text)
    assert "<script>" not in answer.text, path
    return answer.text


def _form(client, **fields):
    token = re.search(r'name="token" value="([0-9a-f]+)"', client.get(BASE).text)[1]
    return {"token": token, **fields}


def test_review_likeliest_first_with_crops_of_the_place(client, curated):
    page = _get(client, f"{BASE}/review")
    assert "To decide</a>" not in page
    assert page.index("overlooked, 75%") < page.index("wrong class, 25%")
    for number in curated.numbers:
        answer = client.get(f"{BASE}/review/{number}.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(answer.content)).size) == 220
    assert "wrong class, 25%" not in _get(client, f"{BASE}/review?kind=overlooked")


def test_review_decision_is_kept_and_can_be_taken_back(client, curated):
    first = curated.numbers[0]
    answer = client.post(f"{BASE}/review/{first}", data=_form(client, verdict="wrong"))
    assert "Your decision is kept" in answer.text
    assert curated.store.reviews.get(PROJECT, first).verdict is Verdict.WRONG
    assert "wrong class, 25%" in _get(client, f"{BASE}/review?show=wrong")
    client.post(f"{BASE}/review/{first}", data=_form(client, verdict="nonsense", show="nonsense"))
    assert curated.store.reviews.get(PROJECT, first).verdict is Verdict.OPEN


def test_review_without_one_says_how(client, curated):
    curated.store.projects.save(8, CONFIG)
    assert "maskloop review 8" in _get(client, "/dashboard/projects/8/review")
    assert "No image has annotations of two people" in _get(
        client, "/dashboard/projects/8/annotators/agreement"
    )
    assert "Not known before the champion has predicted" in _get(client, "/dashboard/projects/8/images/found")
    assert "Nothing is recorded yet" in _get(client, "/dashboard/projects/8/audit")


def test_images_alike_pair_and_outliers_have_pictures(client):
    _get(client, f"{BASE}/images")
    page = _get(client, f"{BASE}/images/found")
    pair = page.split("<li>", 2)[1]
    assert "much alike" in pair
    assert re.findall(r"task (\d+)</a>", pair) == ["300", "301"]
    picture = client.get(f"{BASE}/images/300.jpg")
    assert Image.open(io.BytesIO(picture.content)).size == (48, 48)


def test_annotators_have_the_figures_of_the_corrections(client, curated):
    page = _get(client, f"{BASE}/annotators/edits")
    edited = [one for one in curated.store.corrections.edited(PROJECT) if one.annotator == 2]
    row = re.search(r'<th scope="row">user 2</th>(.*?)</tr>', page, re.DOTALL)[1]
    cells = re.findall(r'<td class="num">(.*?)</td>', row)
    assert cells[:2] == [str(len(edited)), str(sum(one.edits.kept for one in edited))]


def test_boxes_are_counted_on_the_pages_of_project_and_annotators(settings):
    services = make_services(settings.model_copy(update={"basic_auth_user": None}))
    services.store.projects.save(PROJECT, CONFIG)
    for seed in (1, 2):
        annotate(services, seed)
        annotate(services, seed, second=True, boxes=seed == 2)
    regions = services.store.overview.projects([PROJECT])[0].boxes
    client = TestClient(create_app(services), client=HERE)
    page = client.get(f"{BASE}/annotators/agreement").text
    assert "1 images were drawn by two people or more" in page
    assert "1 annotated images have boxes and are not compared" in page
    assert regions > 1
    assert f"{regions} of their regions are boxes: what is inside" in client.get(BASE).text
    services.close()


def test_annotators_agreement_counts_the_region_that_one_has_not_drawn(client, curated):
    page = _get(client, f"{BASE}/annotators/agreement")
    drawn = len(
        curated.store.corrections.at([curated.store.reviews.get(PROJECT, curated.numbers[0]).version_id])[
            0
        ].segments
    )
    row = re.search(r'<th scope="row">user 1 and user 9</th>(.*?)</tr>', page, re.DOTALL)[1]
    cells = re.findall(r'<td class="num">(.*?)</td>', row)
    assert (cells[0], cells[3:]) == ("1", [str(drawn - 1), "1"])
    _get(client, f"{BASE}/annotators")


def test_audit_says_why_a_version_serves_and_filters(client):
    page = _get(client, f"{BASE}/audit")
    why = page.split("Who did what")[0]
    assert "was promoted by command line" in why
    assert "0.250 to 0.500" in why
    assert html.escape(MARKUP).replace("&#x27;", "&#39;") in why
    assert page.count('<th scope="row" class="num">') == 2
    filtered = _get(client, f"{BASE}/audit?action=exported")
    assert filtered.count('<th scope="row" class="num">') == 1
    assert _get(client, f"{BASE}/audit?actor=schedule").count("No such record") == 1
    assert "2 records are as they were written" in _get(client, f"{BASE}/audit/check")
    assert "settings of the installation" in _get(client, f"/dashboard/projects/{INSTALLATION}/audit")


def test_audit_changed_record_is_named(client, curated):
    with curated.store.audit._sessions.write() as session:
        triggers = session.scalars(
            text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_records'")
        ).all()
        assert triggers, "the database itself refuses"
        bodies = session.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'trigger'")).all()
        for name in triggers:
            session.execute(text(f"DROP TRIGGER {name}"))
        change = (
            "UPDATE audit_records SET record = replace(record, :a, :b) WHERE project_id = :p AND number = 2"
        )
        session.execute(text(change), {"a": "coco", "b": "none", "p": PROJECT})
        page = None
    try:
        page = _get(client, f"{BASE}/audit/check")
    finally:
        with curated.store.audit._sessions.write() as session:
            session.execute(text(change), {"a": "none", "b": "coco", "p": PROJECT})
            for body in bodies:
                session.execute(text(body))
    assert "Not intact after 1 good records: record 2: its text or its hash was changed" in page


def test_project_page_says_how_versions_are_judged(client, curated):
    page = _get(client, BASE)
    assert "Not judged by the holdout yet: 19 more annotated images are needed" in page
    assert "95.0% confidence is required" in page


def test_drift_alarm_is_shown_with_the_tasks_to_label(client, curated):
    state = DriftState(
        model_version=f"maskloop-{PROJECT}-v1",
        signal="images",
        known=20,
        images=150,
        evidence=1.25,
        threshold=5.5,
        strange_share=0.5,
        alarms=2,
        first_alarm=120,
        last_alarm=140,
        tasks=(301, 303),
    )
    curated.store.drifts.save(PROJECT, state.model_version, [state])
    page = _get(client, f"{BASE}/drift")
    assert "<strong>alarm</strong> at image 120, 2 times" in page
    assert 'href="http://studio.test/projects/7/data?task=303"' in page
    assert "Drift, new images unlike those learnt" in _get(client, BASE)
    assert "Drift, new images unlike those learnt" in _get(client, "/dashboard")
    curated.store.drifts.save(PROJECT, state.model_version, [])
    assert "Not measured yet" in _get(client, f"{BASE}/drift")


BAD = [
    pytest.param(f"{BASE}/review/999.jpg", 404, "reload the page", id="no suspicion"),
    pytest.param(f"{BASE}/review?show=all", 404, "list of projects", id="unknown verdict"),
    pytest.param(f"{BASE}/review?kind=%3Cscript%3E", 404, "list of projects", id="markup as kind"),
    pytest.param(f"{BASE}/images/999.jpg", 404, "Data Manager", id="no task"),
    pytest.param("/dashboard/projects/99/review", 404, "maskloop connect 99", id="review of no project"),
    pytest.param(
        "/dashboard/projects/99/images/found", 404, "maskloop connect 99", id="images of no project"
    ),
    pytest.param("/dashboard/projects/99/audit", 404, "maskloop connect 99", id="audit of no project"),
    pytest.param(f"{BASE}/audit?action=%3Cscript%3E", 200, "exported", id="markup as action"),
    pytest.param(f"{BASE}/audit?below=0", 404, "list of projects", id="record 0"),
]


@pytest.mark.parametrize(("path", "status", "words"), BAD)
def test_bad_address_is_a_page_that_says_so(client, path, status, words):
    assert words in _get(client, path, status)


def test_action_without_token_is_refused(client, curated):
    answer = client.post(f"{BASE}/review/{curated.numbers[0]}", data={"token": "0" * 64, "verdict": "right"})
    assert answer.status_code == 403
    assert curated.store.reviews.get(PROJECT, curated.numbers[0]).verdict is Verdict.OPEN


def test_database_away_every_page_and_action_says_so(client, curated, monkeypatch):
    number, form = curated.numbers[0], _form(client)
    pages = ["review", f"review/{number}.jpg", "images", "images/found", "annotators"]
    pages += ["annotators/edits", "annotators/agreement", "audit", "audit/check"]
    take_database_away(monkeypatch)
    answers = {part: client.get(f"{BASE}/{part}") for part in pages}
    answers["decide"] = client.post(f"{BASE}/review/{number}", data=form | {"verdict": "right"})
    told = {part: answer.status_code for part, answer in answers.items()}
    assert told == dict.fromkeys(told, 503)
    assert [part for part, answer in answers.items() if "&lt;b&gt;none&lt;/b&gt;" not in answer.text] == []
