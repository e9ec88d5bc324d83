"""`maskloop doctor` says where annotators see nothing, and why."""

from types import SimpleNamespace

import pytest

from maskloop.learning.evaluation.showing import HIDDEN, Showing, write_showing
from maskloop.store.scores import ScoredTask
from maskloop.types import ShowMode
from maskloop_studio.doctor.drawing import check_drawn
from maskloop_studio.doctor.findings import Level

TAG = "maskloop-7-v2"
HIDDEN_DISC = Showing(floors={"disc": HIDDEN}, images=3, objects=9, found=8)


@pytest.fixture
def look(settings, store, tmp_path):
    def do(counts, *, showing=None, show=ShowMode.AUTO, champion=TAG):
        if showing is not None:
            write_showing(tmp_path, showing)
        scored = [
            ScoredTask(task_id=number, confidence=0.5, found=found, drawn=drawn)
            for number, (found, drawn) in enumerate(counts)
        ]
        store.scores.add(7, TAG, scored)
        version = SimpleNamespace(tag=TAG, path=tmp_path)
        context = SimpleNamespace(
            number=7,
            champion=champion,
            store=store,
            settings=settings.model_copy(update={"show": show}),
            registry=SimpleNamespace(versions=lambda name: [version]),
        )
        return list(check_drawn(context))

    return do


CASES = [
    pytest.param([(0, 0)] * 20, None, Level.HINT, "draws nothing on 20 of 20 tasks", id="finds nothing"),
    pytest.param([(3, 0)] * 4, HIDDEN_DISC, Level.HINT, "not worth correcting", id="not worth drawing"),
    pytest.param([(3, 3), (0, 0)], None, Level.GOOD, "nothing on 1 of 2 tasks", id="some are empty"),
    pytest.param([], HIDDEN_DISC, Level.GOOD, "draws nothing", id="nothing predicted yet"),
]


@pytest.mark.parametrize(("counts", "showing", "level", "words"), CASES)
def test_check_drawn_says_where_nothing_is_to_be_seen(look, counts, showing, level, words):
    (found,) = look(counts, showing=showing)
    assert found.level is level
    assert words in found.got


def test_check_drawn_hidden_by_the_setting_names_it(look):
    (found,) = look([(3, 0)], show=ShowMode.NONE)
    assert "MASKLOOP_SHOW" in found.got


def test_check_drawn_without_a_champion_says_nothing(look):
    assert look([], champion=None) == []
