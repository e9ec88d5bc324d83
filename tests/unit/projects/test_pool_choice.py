"""Which unlabelled images a training gets, and what earlier trainings found out about them."""

from types import SimpleNamespace

import pytest

from maskloop.learning.pool_verdict import FoldScores, PoolSubject, PoolVerdict
from maskloop.types import SegmentationTask
from maskloop_studio.cli.report import pool_text
from maskloop_studio.projects import pool_choice
from maskloop_studio.projects.pool_choice import gather_pool

FOLD = FoldScores(images=5, without=0.5, with_pool=0.5, pool_images=90, seconds=2.0)


def outcome(*, use, images=16, classes=("Car",), wanted=100, base="", training="training-5"):
    subject = PoolSubject(base=base, classes=classes, task="instance", wanted=wanted, images=images)
    verdict = PoolVerdict(
        use=use,
        gain=0.0,
        needed=0.02,
        folds=(FOLD, FOLD),
        start="m-v1",
        teacher="m-v1",
        subject=subject,
        training=training,
    )
    return {"pool_check": verdict.as_json()}


@pytest.fixture
def gather(settings, tmp_path, make_correction, monkeypatch):
    """Return a function that gathers the pool of training 9 and says whether it looked for images."""

    def call(*, outcomes=(), images=16, wanted=100, check=True, labels=("Car",), task="instance", found=True):
        looked = []

        def pool_images(request, services):
            looked.append(request)
            return (tmp_path / "a.png",) if found else ()

        monkeypatch.setattr(pool_choice, "pool_images", pool_images)
        trainings = [
            SimpleNamespace(training_id=number, outcome=one) for number, one in enumerate(outcomes, start=5)
        ]
        services = SimpleNamespace(
            settings=settings.model_copy(update={"train_pool_check": check}),
            store=SimpleNamespace(trainings=SimpleNamespace(of=lambda _: trainings)),
        )
        given = gather_pool(
            SimpleNamespace(project_id=1, wanted=wanted),
            services,
            champion=SimpleNamespace(labels=labels, path=tmp_path, number=1),
            classes=("Car",),
            task=SegmentationTask(task),
            train=[make_correction(image_key=f"{number:064d}") for number in range(images)],
            but=9,
        )
        return given, bool(looked)

    return call


@pytest.mark.parametrize(
    ("asked", "looks", "reason"),
    [
        pytest.param({"wanted": 0, "check": False}, False, None, id="not asked for"),
        pytest.param({"wanted": 0}, False, "MASKLOOP_TRAIN_POOL is 0", id="check of no pool"),
        pytest.param({"labels": ()}, False, "does not know Car", id="new class"),
        pytest.param({"task": "panoptic"}, False, "the task is panoptic", id="task"),
        pytest.param({}, True, None, id="first training"),
        pytest.param({"found": False}, True, "no image of an unlabelled task", id="none to be had"),
        pytest.param({"outcomes": [outcome(use=False)]}, False, "do not gain enough", id="did not help"),
        pytest.param({"outcomes": [outcome(use=True)]}, True, None, id="helped"),
        pytest.param({"outcomes": [outcome(use=False)], "check": False}, True, None, id="check is off now"),
        pytest.param({"outcomes": [outcome(use=False)], "images": 24}, True, None, id="grown by half"),
        pytest.param({"outcomes": [outcome(use=False, classes=("Van",))]}, True, None, id="other labels"),
        pytest.param({"outcomes": [outcome(use=False, base="other")]}, True, None, id="other base"),
        pytest.param({"outcomes": [None, {"pool_check": {"use": 1}}, {}]}, True, None, id="damaged"),
    ],
)
def test_images_are_gathered_where_they_may_help(gather, asked, looks, reason, caplog):
    caplog.set_level("INFO")
    given, looked = gather(**asked)
    assert looked is looks
    assert bool(given.images) is (looks and reason is None)
    assert (given.why_none is None) is (reason is None)
    if reason is not None:
        assert reason in given.why_none
    assert ("pool_not_used" in caplog.text) is (reason is not None and not looks)


@pytest.mark.parametrize("uses", [(True, False), (False, True)], ids=["off since", "on since"])
def test_newest_verdict_that_holds_counts(gather, uses):
    outcomes = [outcome(use=use, training=f"training-{number}") for number, use in enumerate(uses)]
    given, looked = gather(outcomes=[*outcomes, outcome(use=not uses[1], wanted=50), {}])
    assert (given.verdict.training, given.verdict.use, looked) == ("training-1", uses[1], uses[1])


def test_own_outcome_of_a_training_that_runs_again_is_not_its_past(gather):
    given, looked = gather(outcomes=[{}, {}, {}, {}, outcome(use=False)])  # 5, 6, 7, 8 and itself
    assert (given.verdict, looked) == (None, True)


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ({}, None),
        ({"pool": None, "why_no_pool": None, "pool_check": None}, None),
        (
            {"pool": None, "why_no_pool": "too few"},
            "the newest training learnt from no unlabelled image: too few",
        ),
        (
            {"pool": {"images": 90, "objects": 400, "unsure": 3}},
            "the newest training learnt from 90 unlabelled images as well (400 objects)",
        ),
        (
            {"pool": {"images": 90, "objects": 400, "unsure": 3}, "pool_check": {"text": "they gain"}},
            "the newest training learnt from 90 unlabelled images as well (400 objects): they gain",
        ),
    ],
)
def test_report_says_what_became_of_the_pool(stored, text):
    assert pool_text(stored) == text
