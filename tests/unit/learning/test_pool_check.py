"""The folds of the check of unlabelled images: who learns what, who judges, and what a kill leaves."""

import numpy as np
import pytest

from maskloop.errors import StoreError
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.learning.pool_check import fold_scores, make_folds, without_copies
from maskloop.types import Prediction

SIZE_HW = (20, 40)


class Killed(BaseException):
    pass


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (*SIZE_HW, 3)).astype(np.uint8)


@pytest.fixture
def example(make_segment):
    """Return a function that makes example `key` with an image of its own and one disc."""

    def make(key, *, seed, group="", segments=None, **changes):
        drawn = (make_segment(),) if segments is None else segments
        return TrainingExample(image=noise(seed), segments=drawn, key=key, group=group, **changes)

    return make


class Loop:
    """Trainings that note what they learn; with the pool a model finds all objects, else none."""

    def __init__(self, pool):
        self.pool, self.trained, self.taught, self.judged = pool, [], [], []
        self.kill_at = None

    def train(self, fold, guessed, folder):
        if len(self.trained) == self.kill_at:
            raise Killed
        model = (frozenset(one.key for one in fold.rest), tuple(one.key for one in guessed))
        self.trained.append(folder)
        folder.mkdir(parents=True)
        return model

    def label(self, fold, model):
        self.taught.append((fold, model))
        return self.pool

    def evaluate(self, models, examples):
        self.judged.append((models, examples))
        return [self.evaluation(bool(guessed), examples) for _, guessed in models]

    def evaluation(self, finds, examples):
        predictions = [
            Prediction(segments=one.segments if finds else (), size_hw=SIZE_HW, confidence=1.0)
            for one in examples
        ]
        keys = [one.key for one in examples]
        return evaluate_predictions(predictions, [one.segments for one in examples], ["disc"], keys=keys)

    def scores(self, folds, near_distance=0.2):
        return fold_scores(
            folds, train=self.train, label=self.label, evaluate=self.evaluate, near_distance=near_distance
        )


def every_key(examples):
    return {one.key for one in examples}


def test_folds_judge_each_image_once_by_models_that_have_not_seen_it_or_a_copy(example, tmp_path):
    examples = [example(f"a{number}", seed=number, group=str(number // 2)) for number in range(12)]
    learnt = [
        example(f"old{number}", seed=50 + number, group="0" if number == 0 else "") for number in range(3)
    ]
    loop = Loop([example("u", seed=99, guessed=True)])
    folds = make_folds([*examples, *learnt], every_key(examples), tmp_path / "check")
    scores = loop.scores(folds)
    judged = [one.key for _, part in loop.judged for one in part]
    assert sorted(judged) == sorted(every_key(examples))
    of_key = {one.key: one for one in (*examples, *learnt)}
    for models, part in loop.judged:
        groups = {one.group for one in part}
        assert models[0][0] == models[1][0], "both ways learn from the same annotated images"
        assert (models[0][1], models[1][1]) == ((), ("u",))
        assert not groups & {of_key[key].group for key in models[0][0]}
        assert {"old1", "old2"} <= models[0][0], "what the start has learnt stays and judges nothing"
    assert [fold.images for fold in scores] == [2, 2, 2], "copies count once"
    assert [(fold.without, fold.with_pool) for fold in scores] == [(0.0, 1.0)] * 3
    assert all(model == models[0] for (_, model), (models, _) in zip(loop.taught, loop.judged, strict=True))
    assert sorted(path.name for path in (tmp_path / "check").iterdir()) == ["0.json", "1.json", "2.json"]


@pytest.mark.parametrize("killed_at", range(6), ids=lambda at: f"killed in training {at}")
def test_fold_scores_killed_keeps_the_figures_of_finished_folds(example, tmp_path, killed_at):
    examples = [example(f"a{number}", seed=number) for number in range(6)]
    pool = [example("u", seed=99)]
    folds = make_folds(examples, every_key(examples), tmp_path)
    first = Loop(pool)
    first.kill_at = killed_at
    with pytest.raises(Killed):
        first.scores(folds)
    for path in first.trained:  # the real training goes on in its folder
        if path.exists():
            path.rmdir()
    second = Loop(pool)
    scores = second.scores(folds)
    finished = killed_at // 2
    assert len(second.judged) == 3 - finished
    assert [path.parent.name for path in second.trained] == [str(n) for n in range(finished, 3) for _ in "ab"]
    assert [fold.gain for fold in scores] == [1.0, 1.0, 1.0]


def test_copies_of_images_that_judge_are_left_out_of_the_pool(example, tmp_path):
    judged = [example(f"a{number}", seed=number) for number in range(6)]
    pool = [example("copy", seed=2), example("u", seed=99)]
    assert every_key(without_copies(pool, judged, near_distance=0.2)) == {"u"}
    loop = Loop(pool)
    scores = loop.scores(make_folds(judged, every_key(judged), tmp_path))
    assert sorted(fold.pool_images for fold in scores) == [1, 2, 2]


def test_fold_whose_pool_is_all_copies_gains_nothing_and_trains_once(example, tmp_path):
    judged = [example(f"a{number}", seed=7) for number in range(6)]
    loop = Loop([example("copy", seed=7)])
    scores = loop.scores(make_folds(judged, every_key(judged), tmp_path))
    assert [(fold.gain, fold.pool_images) for fold in scores] == [(0.0, 0)] * 3
    assert len(loop.trained) == 3


def test_fold_without_an_object_is_left_out(example, tmp_path):
    empty = [example(f"a{number}", seed=number, segments=()) for number in range(4)]
    full = [example(f"b{number}", seed=10 + number) for number in range(2)]
    folds = make_folds([*empty, *full], every_key([*empty, *full]), tmp_path)
    assert [fold.folder.name for fold in folds] == ["1", "2"]
    assert [len(fold.rest) for fold in folds] == [4, 4], "its images teach the others"
    scores = Loop([example("u", seed=99)]).scores(folds)
    assert [fold.gain for fold in scores] == pytest.approx([1.0, 1.0])


def test_folds_of_one_image_and_its_copies_are_none(example, tmp_path):
    examples = [example(f"a{number}", seed=number, group="g") for number in range(3)]
    assert make_folds(examples, every_key(examples), tmp_path) == ()


def test_fold_scores_damaged_figures_raise(example, tmp_path):
    examples = [example(f"a{number}", seed=number) for number in range(6)]
    (tmp_path / "0.json").write_text('{"images": 2}')
    with pytest.raises(StoreError, match="delete this file"):
        Loop(()).scores(make_folds(examples, every_key(examples), tmp_path))
