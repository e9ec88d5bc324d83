"""A OneFormer that is trained in all of its tasks."""

import logging
from dataclasses import replace

import pytest
import torch

from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.training.click_training import ClickTrainer
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingStoppedError
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.types import SegmentationTask

RECIPE = FinetuneRecipe(steps=8, batch=2, learning_rate=1e-3, warmup=2, save_every=4, threads=1, tasks="all")


def job(folder, recipe=RECIPE, build=build_tiny_oneformer, **changes):
    extra = {"training": True} if build is build_tiny_oneformer else {}
    base = build(SHAPE_CLASSES, seed=0, **extra)
    return FinetuneJob(
        base=replace(base, preprocessing=replace(base.preprocessing, shortest_edge=64)),
        examples=made_up_examples(0, 4, domain="base", size_hw=(64, 64)),
        recipe=recipe,
        output_dir=folder,
        **changes,
    )


def weights(checkpoint):
    return torch.cat([parameter.detach().flatten() for parameter in checkpoint.model.parameters()])


def test_finetune_all_tasks_stopped_then_resumed_equals_uninterrupted(tmp_path):
    whole = finetune(job(tmp_path / "whole"))
    calls = iter(range(100))
    with pytest.raises(TrainingStoppedError, match="after step 6"):
        finetune(job(tmp_path / "parts"), TrainingControl(should_stop=lambda: next(calls) == 5))
    assert torch.allclose(weights(finetune(job(tmp_path / "parts"))), weights(whole), atol=1e-6)


@pytest.mark.parametrize("build", [build_tiny_oneformer, build_tiny_mask2former], ids=["oneformer", "other"])
def test_finetune_all_tasks_change_oneformer_alone(tmp_path, build):
    recipe = replace(RECIPE, steps=3)
    own, every = (
        finetune(job(tmp_path / tasks, replace(recipe, tasks=tasks), build)) for tasks in ("own", "all")
    )
    assert torch.equal(weights(own), weights(every)) is (build is build_tiny_mask2former)


def test_finetune_all_tasks_of_a_semantic_project_are_its_own(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        finetune(job(tmp_path / "things", replace(RECIPE, steps=1), task=SegmentationTask.SEMANTIC))
        kinds = ClassKinds(setting=frozenset(SHAPE_CLASSES))
        finetune(
            job(tmp_path / "stuff", replace(RECIPE, steps=1), task=SegmentationTask.SEMANTIC, kinds=kinds)
        )
    told = [line for line in caplog.messages if "tasks_sampled" in line]
    assert ["panoptic" in line for line in told] == [False, True]


def test_finetune_all_tasks_clicks_learn_objects_of_the_own_task(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ClickTrainer, "step", lambda self, index_bhw, number: seen.extend(index_bhw.amax(dim=(1, 2)).tolist())
    )
    training = job(tmp_path, replace(RECIPE, steps=12, click_queries=True, save_every=12))
    finetune(training)
    assert len(seen) == 24
    assert 4 <= sum(objects == 0 for objects in seen) <= 20  # made-up images are never empty
