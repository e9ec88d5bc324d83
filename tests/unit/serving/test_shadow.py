"""What keeps a shadow model from delaying requests."""

import threading
from types import SimpleNamespace

import pytest

from maskloop_studio.serving.model_directory import ServedModel
from maskloop_studio.serving.shadow import MAX_URI_CHARACTERS, ShadowRunner

SHADOW = ServedModel(tag="m-v2", source="folder", labels=())


def _nothing():
    raise AssertionError("not asked for here")


@pytest.fixture
def make_runner(settings, monkeypatch):
    made = []

    def make(share=1.0):
        changed = settings.model_copy(update={"shadow_share": share})
        runner = ShadowRunner(changed, fetcher=_nothing, store=_nothing)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.stop()


def make_image(uri="a"):
    return SimpleNamespace(uri=uri, shadow=SHADOW)


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0), (0.1, 10), (0.25, 25), (1.0, 100)])
def test_wants_its_share_of_requests(make_runner, share, wanted):
    runner = make_runner(share)
    assert sum(runner.wants(SHADOW) for _ in range(100)) in (wanted, wanted - 1)  # sums of floats
    assert not runner.wants(None)


def test_offer_while_busy_returns_at_once_and_drops(make_runner, monkeypatch):
    runner, go_on, looked = make_runner(), threading.Event(), []

    def look(image):
        looked.append(image.uri)
        assert go_on.wait(30)

    monkeypatch.setattr(runner, "_look", look)
    runner.offer(make_image("1"))
    while not looked:
        go_on.wait(0.01)
    for number in range(2, 100):  # one waits, the rest is dropped
        runner.offer(make_image(str(number)))
    assert not runner.wants(SHADOW)
    go_on.set()
    while len(looked) < 2:
        threading.Event().wait(0.01)
    runner.stop()
    assert looked == ["1", "2"]


def test_offer_huge_address_is_not_kept(make_runner):
    runner = make_runner()
    runner.offer(make_image("x" * (MAX_URI_CHARACTERS + 1)))
    assert runner._thread is None


def test_offer_after_stop_starts_nothing(make_runner):
    runner = make_runner()
    runner.stop()
    runner.offer(make_image())
    assert runner._thread is None


def test_look_any_failure_is_logged_and_over(make_runner, caplog):
    make_runner()._look(make_image())  # services have nothing that it needs
    assert "shadow_failed model_version=m-v2" in caplog.text
