"""What decides whether a training learns from unlabelled images, and from where its folds start."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.unit.learning.test_unseen import learnt_entry

from maskloop.errors import DamagedVersionError
from maskloop.learning import unlabelled_pool
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.data.training_set import LabelPlan, TrainingSet, example_key
from maskloop.learning.pool_verdict import FoldScores
from maskloop.learning.registration import POOL_CHECK_KEY, TRAINING_KEY
from maskloop.learning.registry.model_card import SNAPSHOT_FILE
from maskloop.learning.training_job import TrainingJob
from maskloop.learning.unlabelled_pool import choose_pool
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import ModelVersion, SegmentationTask

PLAN = LabelPlan(labels=("disc",), class_of_label={})


class Registry:
    """Versions 1, the base, and 2, which learnt some tasks; either may be the champion, 1 may be gone."""

    def __init__(self, folder, learnt):
        self.metadata_of = {}
        self.damaged = False
        self.kept = []
        for number, tasks in ((1, ()), (2, learnt)):
            path = folder / f"v{number}"
            path.mkdir(exist_ok=True)
            entries = tuple(learnt_entry(task, f"{task:064d}") for task in tasks)
            if number == 2:
                SnapshotManifest(entries=entries).write(path / SNAPSHOT_FILE)
            self.kept.append(
                ModelVersion(name="m", number=number, path=path, labels=("disc",), parent=number - 1 or None)
            )

    def versions(self, name):
        return self.kept

    def get(self, name, number):
        if self.damaged:
            raise DamagedVersionError("m-v1", expected="files", got="none", remedy="restore")
        return self.kept[number - 1]

    def metadata(self, name, number):
        return self.metadata_of.get(number, {})


@pytest.fixture
def choose(settings, tmp_path, make_correction, make_segment, monkeypatch):
    """Return a function that asks for the pool of a project, with trainings that are only noted."""

    def call(*, images=12, learnt=(), champion=1, pool=100, finds=True, gain=0.1, objects=True, **more):
        groups, prepare, check = (more.pop(name, None) for name in ("groups", "prepare", "check"))
        registry = Registry(tmp_path, learnt)
        if prepare is not None:
            prepare(registry)
        serving = next(one for one in registry.kept if one.number == champion)
        train = [
            make_correction(task_id=task, annotation_id=task, image_key=f"{task:064d}")
            for task in range(1, images + 1)
        ]
        examples = tuple(
            TrainingExample(
                image=np.random.default_rng(one.task_id).integers(0, 255, (20, 40, 3)).astype(np.uint8),
                segments=one.segments if objects else (),
                key=example_key(one),
                group=(groups or {}).get(one.task_id, ""),
            )
            for one in train
        )
        done = SimpleNamespace(starts=[], labelled=[], judged=[], registry=registry)

        def pseudo_examples(teacher, paths, **_):
            done.labelled.append(teacher)
            found = paths if finds is True else paths[:finds]
            return tuple(
                TrainingExample(
                    image=np.random.default_rng(1000 + number).integers(0, 255, (20, 40, 3)).astype(np.uint8),
                    segments=(make_segment(),),
                    key=str(path),
                    guessed=True,
                )
                for number, path in enumerate(found)
            )

        def train_part(part_job, part, start, **_):
            done.starts.append(start)
            return SimpleNamespace(of=start, pool=len(part.pool), learnt={one.key for one in part.examples})

        def fold_scores(folds, *, train, label, evaluate, near_distance):
            for fold in folds:
                model = train(fold, (), Path("without"))
                train(fold, label(fold, model), Path("with"))
                done.judged.append({one.key for one in fold.judged})
                assert not done.judged[-1] & model.learnt
            return tuple(
                FoldScores(images=4, without=0.5, with_pool=0.5 + gain, pool_images=pool, seconds=1.0)
                for _ in folds
            )

        monkeypatch.setattr(unlabelled_pool, "pseudo_examples", pseudo_examples)
        monkeypatch.setattr(unlabelled_pool, "train_part", train_part)
        monkeypatch.setattr(unlabelled_pool, "fold_scores", fold_scores)
        monkeypatch.setattr(
            unlabelled_pool, "load_checkpoint", lambda path, **_: SimpleNamespace(of=path.name)
        )
        monkeypatch.setattr(unlabelled_pool, "base_name", lambda _: "tiny")
        changed = settings.model_copy(update={"train_pool": 100, "train_pool_check": check is not False})
        asked = TrainingJob(
            key="training-9",
            champion=serving,
            train=train,
            holdout=(),
            labels=PLAN,
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(),
            work_dir=tmp_path / "work",
            pool=[tmp_path / f"{number}.png" for number in range(pool)],
            **more,
        )
        training_set = TrainingSet(
            plan=PLAN,
            train=tuple(train),
            holdout=(),
            examples=examples,
            validation=(),
            holdout_examples=(),
            holdout_gaps=None,
        )
        done.choice = choose_pool(asked, training_set, "champion", registry=registry, settings=changed)
        return done

    return call


@pytest.mark.parametrize(("gain", "use"), [(0.1, True), (0.01, False), (-0.1, False)])
def test_pool_is_used_where_the_folds_gain(choose, gain, use, caplog):
    caplog.set_level("INFO")
    done = choose(gain=gain)
    choice = done.choice
    assert len(choice.examples) == (100 if use else 0)
    assert choice.verdict.use is use
    assert (choice.verdict.subject.images, choice.verdict.subject.base) == (12, "tiny")
    assert choice.verdict.training == "training-9"
    assert choice.why_none == (None if use else choice.verdict.in_words())
    assert ("pool_used" in caplog.text) is use
    assert ("pool_not_used" in caplog.text) is not use
    assert done.starts == ["champion"] * 6
    assert done.labelled == ["champion"], "it has learnt from none of them: its labels serve every fold"
    assert set().union(*done.judged) == {f"1/{task}/{task}" for task in range(1, 13)}


def test_pool_without_the_check_is_used_and_nothing_is_trained(choose):
    done = choose(check=False, gain=-1)
    assert len(done.choice.examples) == 100
    assert (done.choice.verdict, done.starts) == (None, [])


def remove_first(registry):
    del registry.kept[0]


def damage_first(registry):
    registry.damaged = True


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"images": 7}, "7 annotated images outside the holdout, 8 are needed", id="few images"),
        pytest.param(
            {"groups": dict.fromkeys(range(1, 8), "one")}, "6 annotated images", id="few that are no copies"
        ),
        pytest.param({"pool": 7}, "something on 7 unlabelled images, not on 8", id="small pool"),
        pytest.param({"objects": False}, "objects on the images of 0 of the folds, 2", id="no object"),
        pytest.param({"finds": 5}, "something on 5 unlabelled images", id="labels on few"),
        pytest.param(
            {"champion": 2, "learnt": range(1, 7), "prepare": remove_first},
            "all but 6 of the annotated images, 8 new ones are needed",
            id="no version that has not learnt them",
        ),
        pytest.param(
            {"champion": 2, "learnt": range(1, 7), "prepare": damage_first},
            "the first version, which has learnt from none, was removed or is damaged",
            id="damaged",
        ),
    ],
)
def test_pool_that_cannot_be_checked_is_not_used(choose, changes, reason):
    done = choose(**changes)
    assert done.choice.examples == ()
    assert done.choice.verdict is None, "asked again by the next training"
    assert "MASKLOOP_TRAIN_POOL_CHECK" in done.choice.why_none
    assert reason in done.choice.why_none
    assert done.starts == []


def test_pool_on_which_nothing_is_found_is_told(choose):
    assert choose(finds=0).choice.why_none == "the served version finds nothing on them"


def test_folds_start_from_the_first_version_where_the_champion_knows_the_images(choose):
    done = choose(champion=2, learnt=range(1, 8))
    assert [one.of for one in done.starts] == ["v1"] * 6
    assert (done.choice.verdict.start, done.choice.verdict.teacher) == ("m-v1", "each fold's own model")
    teachers = done.labelled[1:]
    assert [one.pool for one in teachers] == [0, 0, 0], "each fold's model without the pool"
    for teacher, judged in zip(teachers, done.judged, strict=True):
        assert not teacher.learnt & judged
    assert set().union(*done.judged) == {f"1/{task}/{task}" for task in range(1, 13)}


@pytest.mark.parametrize(
    ("images", "learnt", "prepare", "judging"),
    [
        pytest.param(20, range(1, 11), None, 10, id="half are new to the champion"),
        pytest.param(20, range(1, 13), remove_first, 8, id="fewer are, but there is no other start"),
    ],
)
def test_folds_start_from_the_champion_and_new_images_judge(choose, images, learnt, prepare, judging):
    done = choose(champion=2, images=images, learnt=learnt, prepare=prepare)
    assert done.starts == ["champion"] * 6
    assert set().union(*done.judged) == {
        f"1/{task}/{task}" for task in range(images - judging + 1, images + 1)
    }


def test_copies_of_what_the_champion_knows_do_not_judge(choose):
    groups = {task: f"pair {task % 12}" for task in range(1, 25)}  # 1 and 13, 2 and 14 ...
    done = choose(champion=2, images=24, learnt=[1, 2], groups=groups)
    judged = set().union(*done.judged)
    assert len(judged) == 20
    assert not judged & {f"1/{task}/{task}" for task in (1, 2, 13, 14)}


def test_earlier_verdict_is_followed_without_a_training(choose):
    first = choose(gain=0.1).choice.verdict
    again = choose(pool_verdict=first, gain=-1)
    assert (len(again.choice.examples), again.choice.verdict, again.starts) == (100, first, [])


def test_verdict_of_a_version_that_was_registered_before_a_kill_is_followed(choose):
    def register(registry):
        stored = {
            "use": False,
            "gain": 0.0,
            "needed": 0.02,
            "folds": [],
            "start": "m-v1",
            "teacher": "m-v1",
            "subject": {"base": "tiny", "classes": ["disc"], "task": "instance", "wanted": 100, "images": 12},
            "training": "training-9",
        }
        registry.metadata_of[2] = {TRAINING_KEY: "training-9", POOL_CHECK_KEY: json.dumps(stored)}

    done = choose(prepare=register, gain=1)
    assert (done.choice.examples, done.starts, done.labelled) == ((), [], [])
    assert "do not gain enough" in done.choice.why_none
