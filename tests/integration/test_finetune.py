import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maskloop.errors import TrainingError
from maskloop.lab.synthetic.shapes import make_image
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingStoppedError
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import Segment

RECIPE = FinetuneRecipe(steps=8, batch=2, learning_rate=1e-3, warmup=2, save_every=4, threads=1)
SIZE_HW = (64, 64)


def make_examples(count=4, classes=("disc", "square")):
    made = [make_image(seed, size_hw=SIZE_HW, classes=classes) for seed in range(count)]
    return [TrainingExample(image=m.image_hwc, segments=m.segments, key=str(i)) for i, m in enumerate(made)]


def make_base(family="mask2former", labels=("disc", "square")):
    build = build_tiny_mask2former if family == "mask2former" else build_tiny_oneformer
    extra = {} if family == "mask2former" else {"training": True}
    made = build(labels, seed=0, **extra)
    return replace(made, preprocessing=replace(made.preprocessing, shortest_edge=64))


def weights(checkpoint):
    return torch.cat([parameter.detach().flatten() for parameter in checkpoint.model.parameters()])


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_short_training_lowers_the_loss(tmp_path, family):
    base = make_base(family)
    before = weights(base).clone()
    losses = []
    recipe = replace(RECIPE, steps=30, augmentation=Augmentation(flips=False, quarter_turns=False))
    trained = finetune(
        FinetuneJob(base=base, examples=make_examples(2), recipe=recipe, output_dir=tmp_path),
        TrainingControl(
            on_progress=lambda progress: losses.append((progress.step, progress.loss, progress.eta_s))
        ),
    )
    assert [step for step, _, _ in losses] == [10, 20, 30]
    assert losses[-1][1] < 0.9 * losses[0][1]
    assert losses[-1][2] == 0.0
    assert torch.equal(weights(base), before)
    assert not trained.model.training


def test_finetune_result_saves_and_loads(tmp_path):
    trained = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path)
    )
    loaded = load_checkpoint(save_checkpoint(trained, tmp_path / "saved"), device="cpu")
    assert torch.equal(weights(loaded), weights(trained))


def test_finetune_oneformer_loaded_for_prediction_trains_and_predicts(tmp_path):
    folder = save_checkpoint(make_base("oneformer"), tmp_path / "base")
    examples = make_examples(2)
    trained = finetune(
        FinetuneJob(
            base=load_checkpoint(folder, device="cpu"), examples=examples, recipe=RECIPE, output_dir=tmp_path
        )
    )
    assert evaluate_checkpoint(trained, examples).images == 2
    saved = save_checkpoint(trained, tmp_path / "saved")
    assert "text_mapper" in " ".join(load_file(saved / "model.safetensors"))


def test_finetune_same_seed_is_reproducible(tmp_path):
    first, second = (
        finetune(
            FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path / name)
        )
        for name in "ab"
    )
    assert torch.equal(weights(first), weights(second))


def test_finetune_data_workers_change_nothing(tmp_path, monkeypatch):
    from maskloop.learning.training import trainer  # as late as finetune() does

    alone = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path / "alone")
    )
    monkeypatch.setattr(trainer, "data_workers", lambda device, processes: 2)
    helped = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path / "helped")
    )
    assert torch.equal(weights(alone), weights(helped))


def test_finetune_new_class_keeps_the_old_ones_first(tmp_path):
    examples = make_examples(classes=("star", "disc"))
    trained = finetune(FinetuneJob(base=make_base(), examples=examples, recipe=RECIPE, output_dir=tmp_path))
    assert trained.labels == ("disc", "square", "star")
    assert trained.model.config.id2label == {0: "disc", 1: "square", 2: "star"}


def with_deleted(examples):
    """Return the examples with a deleted region that is all that is not annotated."""
    whole = Segment(mask_hw=np.ones(SIZE_HW, bool), offset_yx=(0, 0), label="disc")
    return [replace(example, deleted=(whole,)) for example in examples]


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_deleted_regions_weigh_only_where_the_recipe_says_so(tmp_path, family):
    def trained(name, examples, weight):
        recipe = replace(RECIPE, deleted_weight=weight)
        job = FinetuneJob(
            base=make_base(family), examples=examples, recipe=recipe, output_dir=tmp_path / name
        )
        return weights(finetune(job))

    plain = trained("plain", make_examples(), 5.0)
    assert torch.equal(trained("off", with_deleted(make_examples()), 1.0), plain)
    assert not torch.equal(trained("on", with_deleted(make_examples()), 5.0), plain)


def with_others(examples, *, change):
    """Return the examples with another annotator, who draws the same or leaves out the first object."""
    return [
        replace(example, others=(example.segments[1:] if change else example.segments,))
        for example in examples
    ]


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_another_annotator_matters_only_where_they_differ(tmp_path, family):
    def trained(name, examples):
        job = FinetuneJob(
            base=make_base(family), examples=examples, recipe=RECIPE, output_dir=tmp_path / name
        )
        return weights(finetune(job))

    plain = trained("plain", make_examples())
    torch.testing.assert_close(trained("same", with_others(make_examples(), change=False)), plain)
    changed = trained("other", with_others(make_examples(), change=True))
    assert float((changed - plain).abs().max()) > 1e-3


def test_finetune_another_annotator_of_the_same_images_deletes_the_state(tmp_path):
    finetune(FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path))
    steps = []
    finetune(
        FinetuneJob(
            base=make_base(),
            examples=with_others(make_examples(), change=True),
            recipe=RECIPE,
            output_dir=tmp_path,
        ),
        TrainingControl(should_stop=lambda: steps.append(1) is not None),
    )
    assert len(steps) == 8


@pytest.mark.parametrize(
    ("change", "examples"),
    [
        pytest.param({}, make_examples(), id="last-weights"),
        pytest.param({"average": 0.9}, make_examples(), id="averaged"),
        pytest.param({"deleted_weight": 5.0}, with_deleted(make_examples()), id="deleted regions"),
        pytest.param({}, with_others(make_examples(), change=True), id="several annotators"),
        pytest.param({"denoise": True}, with_others(make_examples(), change=True), id="and denoising"),
    ],
)
def test_finetune_stopped_then_resumed_equals_uninterrupted(tmp_path, change, examples):
    recipe = replace(RECIPE, **change)
    whole = finetune(
        FinetuneJob(base=make_base(), examples=examples, recipe=recipe, output_dir=tmp_path / "whole")
    )
    calls = iter(range(100))
    with pytest.raises(TrainingStoppedError, match="after step 6"):
        finetune(
            FinetuneJob(base=make_base(), examples=examples, recipe=recipe, output_dir=tmp_path / "parts"),
            TrainingControl(should_stop=lambda: next(calls) == 5),
        )
    resumed = finetune(
        FinetuneJob(base=make_base(), examples=examples, recipe=recipe, output_dir=tmp_path / "parts")
    )
    assert torch.allclose(weights(resumed), weights(whole), atol=1e-6)


def test_finetune_killed_process_resumes_from_its_state(tmp_path):
    context = multiprocessing.get_context("spawn")
    victim = context.Process(target=_train_until_killed, args=(tmp_path / "killed",))
    victim.start()
    victim.join(120)
    assert victim.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed" / "trainer" / "checkpoint-4").is_dir()
    steps = []
    recipe = replace(RECIPE, steps=20, save_every=4)
    finetune(
        FinetuneJob(
            base=make_base(), examples=make_examples(), recipe=recipe, output_dir=tmp_path / "killed"
        ),
        TrainingControl(should_stop=lambda: steps.append(1) is not None),
    )
    assert len(steps) == 20 - 4


def _train_until_killed(output_dir):
    calls = iter(range(100))
    finetune(
        FinetuneJob(
            base=make_base(),
            examples=make_examples(),
            recipe=replace(RECIPE, steps=20, save_every=4),
            output_dir=output_dir,
        ),
        TrainingControl(
            should_stop=lambda: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == 6 else False
        ),
    )


def test_finetune_half_written_state_is_not_resumed(tmp_path):
    broken = tmp_path / "trainer" / "checkpoint-6"
    calls = iter(range(100))
    with pytest.raises(TrainingStoppedError):
        finetune(
            FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path),
            TrainingControl(should_stop=lambda: next(calls) == 5),
        )
    (broken / "trainer_state.json").unlink()
    steps = []
    finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path),
        TrainingControl(should_stop=lambda: steps.append(1) is not None),
    )
    assert len(steps) == 8 - 4


def test_finetune_other_examples_delete_the_state(tmp_path):
    finetune(FinetuneJob(base=make_base(), examples=make_examples(2), recipe=RECIPE, output_dir=tmp_path))
    steps = []
    finetune(
        FinetuneJob(base=make_base(), examples=make_examples(3), recipe=RECIPE, output_dir=tmp_path),
        TrainingControl(should_stop=lambda: steps.append(1) is not None),
    )
    assert len(steps) == 8


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_images_without_objects_train(tmp_path, family):
    empty = TrainingExample(image=np.zeros((*SIZE_HW, 3), np.uint8), segments=(), key="empty")
    losses = []
    finetune(
        FinetuneJob(
            base=make_base(family), examples=[empty], recipe=replace(RECIPE, steps=4), output_dir=tmp_path
        ),
        TrainingControl(on_progress=lambda progress: losses.append(progress.loss)),
    )
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_boxes_teach_class_and_extent(tmp_path, family):
    """Squares are given as boxes only: they are found where they are, which ignored areas cannot teach."""
    drawn = make_examples(2)
    given = [split_boxes(example, "square") for example in drawn]
    ignored = [replace(example, ignored=example.boxes, boxes=()) for example in given]
    recipe = replace(RECIPE, steps=120, augmentation=Augmentation(flips=False, quarter_turns=False))
    recall = []
    for name, examples in (("given", given), ("ignored", ignored)):
        job = FinetuneJob(
            base=make_base(family),
            examples=examples,
            labels=("disc", "square"),
            recipe=recipe,
            output_dir=tmp_path / name,
        )
        metrics = evaluate_checkpoint(finetune(job), drawn, thresholds=Thresholds(score=0.3))
        recall.append(metrics.per_class["square"]["iou"])
    assert recall[0] > 0.3
    assert recall[1] < 0.1


def split_boxes(example, label):
    """Return the example with the segments of a class as the rectangles around them."""
    masks = tuple(one for one in example.segments if one.label != label)
    boxes = tuple(
        replace(one, mask_hw=np.ones_like(one.mask_hw), is_box=True)
        for one in example.segments
        if one.label == label
    )
    assert masks
    assert boxes
    return replace(example, segments=masks, boxes=boxes)


def test_finetune_no_examples_raises(tmp_path):
    with pytest.raises(TrainingError, match="at least one corrected image"):
        finetune(FinetuneJob(base=make_base(), examples=[], recipe=RECIPE, output_dir=tmp_path))


def test_finetune_label_left_out_raises(tmp_path):
    with pytest.raises(TrainingError, match="labels among disc"):
        finetune(
            FinetuneJob(
                base=make_base(),
                examples=make_examples(classes=("star",)),
                labels=("disc",),
                recipe=RECIPE,
                output_dir=tmp_path,
            )
        )


def test_finetune_diverging_raises(tmp_path):
    base = make_base()
    with torch.no_grad():
        base.model.class_predictor.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite loss"):
        finetune(FinetuneJob(base=base, examples=make_examples(), recipe=RECIPE, output_dir=tmp_path))
