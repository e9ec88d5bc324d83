"""The status page shows what waits, what is set aside and what went wrong; its texts cannot be markup."""

from types import SimpleNamespace

from maskloop.store.database import Store
from maskloop.store.sessions import now
from maskloop_studio.serving.status_page import render_status


def test_render_status_counts_annotations_set_aside(settings, monkeypatch):
    store = Store(settings.resolved_database_url)
    store.projects.save(7, "<View/>")
    store.projects.save(8, "<View/>")
    store.projects.note_missing(8, at=now())
    monkeypatch.setattr(store.annotations, "count_set_aside", lambda number: 20 if number == 7 else 0)
    page = render_status(store, {"intake": 3})
    assert "<td>7</td><td>20: see maskloop doctor 7</td><td>connected</td>" in page
    assert "<td>8</td><td>0</td><td>not found in Label Studio since" in page
    assert "<td>intake</td><td>3</td>" in page
    store.close()


def test_render_status_hostile_text_is_escaped(settings):
    store = Store(settings.resolved_database_url)
    state = SimpleNamespace(
        project_id=7, tag="m-v1", shadow=None, trouble="<script>alert(1)</script>", showing="draws nothing"
    )
    page = render_status(store, {}, [state])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<td>draws nothing</td>" in page
    assert "unreachable" in page
    store.close()
