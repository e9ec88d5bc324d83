"""On a trial each version draws its half of the tasks, all under one name, in the new version's order."""

import dataclasses

import numpy as np
import pytest
from tests.fakes.prelabel_studio import FakePipeline, predict_task

from maskloop.learning.evaluation.trial import is_old_versions
from maskloop.types import Prediction, Segment
from maskloop_studio.prelabel.run import prelabel_project

V1, V2 = "maskloop-1-v1", "maskloop-1-v2"


class TwoModels(FakePipeline):
    """Each version finds one region, the first on the left, others on the right."""

    def predict(self, inputs, *, source, **others):
        left = source.rstrip("/").endswith("1")
        segment = Segment(
            mask_hw=np.ones((4, 4), bool), offset_yx=(2, 0 if left else 4), label="disc", score=0.9
        )
        return [
            dataclasses.replace(found, segments=(segment,)) if isinstance(found, Prediction) else found
            for found in (predict_task(image.task_id) for image in inputs)
        ]


@pytest.fixture
def on_trial(services):
    services.images = TwoModels()
    services.registry.promote("maskloop-1", 2)
    services.store.trials.begin(1, new=V2, old=V1, after_version=0)
    return services


def _regions(studio):
    return {
        one["task"]: one["result"][0]["value"]["rle"] if one["result"] else None
        for one in studio.predictions.values()
    }


def test_halves_are_drawn_by_their_versions_under_one_name(on_trial, studio):
    tasks = studio.add_tasks(60)
    prelabel_project(1, on_trial)
    assert set(studio.of(V2)) == set(tasks)
    assert studio.model_version == V2
    regions = _regions(studio)
    old = [task for task in tasks if is_old_versions(task, V2)]
    new = [task for task in tasks if task not in old]
    assert min(len(old), len(new)) > 10
    assert len({str(regions[task]) for task in old}) == len({str(regions[task]) for task in new}) == 1
    assert regions[old[0]] != regions[new[0]]
    made = on_trial.store.scores.made_by
    assert {made(1, V2, task) for task in old} == {V1}
    assert {made(1, V2, task) for task in new} == {V2}


def test_damaged_old_version_leaves_all_to_the_new_one(on_trial, studio, caplog):
    old = on_trial.registry.peek("maskloop-1", 1)
    (old.path / "model.safetensors").write_text("damaged")
    tasks = studio.add_tasks(20)
    prelabel_project(1, on_trial)
    assert set(studio.of(V2)) == set(tasks)
    assert {on_trial.store.scores.made_by(1, V2, task) for task in tasks} == {V2}
    assert "trial_not_drawn" in caplog.text


def test_without_a_trial_one_version_draws_all(services, studio):
    services.images = TwoModels()
    tasks = studio.add_tasks(20)
    prelabel_project(1, services)
    assert len({str(one) for one in _regions(studio).values()}) == 1
    assert {services.store.scores.made_by(1, V1, task) for task in tasks} == {V1}


def test_after_a_trial_one_version_draws_all(on_trial, studio):
    trial = on_trial.store.trials.running(1)
    on_trial.store.trials.note(trial, verdict="better", ended=True, pairs=9, shares=(0.5, 0.75))
    tasks = studio.add_tasks(20)
    prelabel_project(1, on_trial)
    assert {on_trial.store.scores.made_by(1, V2, task) for task in tasks} == {V2}
