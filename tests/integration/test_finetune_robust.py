"""What goes wrong in a training, and what it does then."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskloop.errors import TrainingError
from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import make_image
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.distributed import finetune_in_processes
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingStoppedError
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import BASE_MODEL
from maskloop.types import Segment

RECIPE = FinetuneRecipe(steps=6, batch=4, learning_rate=1e-3, warmup=2, save_every=2, threads=1)
BOTH = pytest.mark.parametrize(
    "build", [build_tiny_mask2former, build_tiny_oneformer], ids=["mask2former", "oneformer"]
)
STILL = Augmentation(flips=False, quarter_turns=False, scale=(1.0, 1.0), colour=0.0)


def make_examples(count=4, classes=("disc", "square"), first=0):
    made = [make_image(first + seed, size_hw=(64, 64), classes=classes) for seed in range(count)]
    return [TrainingExample(image=m.image_hwc, segments=m.segments, key=str(i)) for i, m in enumerate(made)]


def make_base(build=build_tiny_mask2former, **extra):
    made = build(("disc", "square"), seed=0, **extra)
    return replace(made, preprocessing=replace(made.preprocessing, shortest_edge=64))


def weights(checkpoint):
    return torch.cat([parameter.detach().flatten() for parameter in checkpoint.model.parameters()])


def states(tmp_path):
    return {path.name for path in (tmp_path / "trainer").glob("checkpoint-*")}


@pytest.fixture
def forward(monkeypatch):
    """Let a test see, and change, what each training pass of a Mask2Former is given and gives."""

    def install(change):
        kind = type(make_base().model)
        plain = kind.forward

        def changed(self, pixel_values, **inputs):
            return change(lambda: plain(self, pixel_values=pixel_values, **inputs), pixel_values)

        monkeypatch.setattr(kind, "forward", changed)

    return install


def test_finetune_out_of_memory_continues_with_smaller_parts(tmp_path, forward, caplog):
    sizes = []

    def small_card(run, pixels):
        sizes.append(len(pixels))
        if len(pixels) > 1 and len(sizes) > 3:  # from the fourth pass on, memory holds one image
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run()

    forward(small_card)
    done = []
    with caplog.at_level(logging.WARNING):
        finetune(
            FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path),
            TrainingControl(on_progress=lambda progress: done.append(progress.step)),
        )
    assert done[-1] == 6
    assert sizes == [4, 4, 4, 4, 2, *[1] * 16]  # steps 3 to 6, after the state of step 2
    assert caplog.text.count("batch_split") == 2


def test_finetune_out_of_memory_before_any_state_starts_from_the_base(tmp_path, forward):
    plain = finetune(
        FinetuneJob(
            base=make_base(),
            examples=make_examples(),
            recipe=replace(RECIPE, batch=4),
            output_dir=tmp_path / "plain",
        )
    )

    def no_more_than_two(run, pixels):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run()

    forward(no_more_than_two)
    halved = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path / "halved")
    )
    moved = (weights(plain) - weights(make_base())).norm()
    assert (weights(plain) - weights(halved)).norm() < 1.5 * moved


def test_finetune_no_memory_for_one_image_raises(tmp_path, forward):
    def none(run, pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    forward(none)
    with pytest.raises(TrainingError, match="one image at a time"):
        finetune(FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path))


def test_finetune_single_bad_step_is_left_out(tmp_path, forward, caplog):
    calls = []

    def sometimes_nan(run, pixels):
        calls.append(1)
        outputs = run()
        if len(calls) == 3:
            outputs.loss = outputs.loss * float("nan")
        return outputs

    forward(sometimes_nan)
    losses = []
    with caplog.at_level(logging.WARNING):
        trained = finetune(
            FinetuneJob(base=make_base(), examples=make_examples(), recipe=RECIPE, output_dir=tmp_path),
            TrainingControl(on_progress=lambda progress: losses.append(progress.loss)),
        )
    assert "step_skipped" in caplog.text
    assert np.isfinite(losses).all()
    assert torch.isfinite(weights(trained)).all()


def test_finetune_bad_matching_costs_do_not_crash(tmp_path):
    base = make_base()
    with torch.no_grad():
        base.model.class_predictor.bias[0] = float("inf")  # a softmax of infinities: costs are NaN
    with pytest.raises(TrainingError, match="finite loss"):
        finetune(FinetuneJob(base=base, examples=make_examples(), recipe=RECIPE, output_dir=tmp_path))


def test_finetune_time_is_short_ends_in_time_with_its_schedule(tmp_path):
    done = []
    finetune(
        FinetuneJob(
            base=make_base(),
            examples=make_examples(),
            recipe=replace(RECIPE, steps=500, minutes=1e-6),
            output_dir=tmp_path,
        ),
        TrainingControl(on_progress=lambda progress: done.append((progress.step, progress.steps))),
    )
    assert done == [(6, 6)]  # five to know the pace, and one more


def test_finetune_validation_without_gain_ends_early_with_the_best_state(tmp_path):
    done = []
    recipe = replace(RECIPE, steps=40, learning_rate=0.5, warmup=0, patience=2)  # a rate that ruins it
    trained = finetune(
        FinetuneJob(
            base=make_base(),
            examples=make_examples(),
            recipe=recipe,
            validation=make_examples(2, first=50),
            output_dir=tmp_path,
        ),
        TrainingControl(on_progress=lambda progress: done.append(progress.step)),
    )
    assert max(done, default=0) < 40
    assert torch.isfinite(weights(trained)).all()


@pytest.mark.parametrize("average", [0.0, 0.9], ids=["last-weights", "averaged"])
def test_finetune_validation_resumed_equals_uninterrupted(tmp_path, average):
    common = {"recipe": replace(RECIPE, average=average), "validation": make_examples(2, first=50)}
    whole = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), output_dir=tmp_path / "whole", **common)
    )
    asked = iter(range(100))
    with pytest.raises(TrainingStoppedError, match="after step 3"):
        finetune(
            FinetuneJob(base=make_base(), examples=make_examples(), output_dir=tmp_path / "parts", **common),
            TrainingControl(should_stop=lambda: next(asked) == 2),
        )
    resumed = finetune(
        FinetuneJob(base=make_base(), examples=make_examples(), output_dir=tmp_path / "parts", **common)
    )
    assert torch.allclose(weights(resumed), weights(whole), atol=1e-6)


def test_finetune_averaged_weights_lie_between_those_of_the_steps(tmp_path):
    last, averaged = (
        finetune(
            FinetuneJob(
                base=make_base(),
                examples=make_examples(),
                recipe=replace(RECIPE, average=average),
                output_dir=tmp_path / str(average),
            )
        )
        for average in (0.0, 0.9)
    )
    start, end = weights(make_base()), weights(last)
    moved = (weights(averaged) - start).norm() / (end - start).norm()
    assert 0.05 < moved < 0.95


def test_finetune_frozen_norm_keeps_running_statistics_alone(tmp_path):
    base = make_base()
    trained = finetune(
        FinetuneJob(
            base=base,
            examples=make_examples(),
            recipe=replace(RECIPE, freeze_norm=True),
            output_dir=tmp_path,
        )
    )
    before, after = (dict(one.model.named_buffers()) for one in (base, trained))
    running = [name for name in before if "running_" in name]
    assert running
    assert all(torch.equal(before[name], after[name]) for name in running)
    assert not torch.equal(weights(base), weights(trained))


def test_finetune_frozen_backbone_stays_and_thaws(tmp_path):
    base = make_base()
    trained = finetune(
        FinetuneJob(
            base=base,
            examples=make_examples(),
            recipe=replace(RECIPE, freeze_backbone=True),
            output_dir=tmp_path,
        )
    )
    before, after = (one.model.model.pixel_level_module.encoder.state_dict() for one in (base, trained))
    assert all(torch.equal(before[name], after[name]) for name in before)  # running statistics as well
    assert all(parameter.requires_grad for parameter in trained.model.parameters())
    assert not torch.equal(weights(base), weights(trained))


@BOTH
def test_finetune_bfloat16_trains(tmp_path, build):
    extra = {"training": True} if build is build_tiny_oneformer else {}
    base = make_base(build, **extra)
    trained = finetune(
        FinetuneJob(
            base=base,
            examples=make_examples(),
            recipe=replace(RECIPE, precision="bfloat16"),
            output_dir=tmp_path,
        )
    )
    assert torch.isfinite(weights(trained)).all()
    assert weights(trained).dtype == weights(base).dtype


@BOTH
def test_finetune_more_objects_than_queries_trains(tmp_path, build):
    extra = {"training": True} if build is build_tiny_oneformer else {}
    crowd = tuple(
        Segment(mask_hw=np.ones((5, 5), bool), offset_yx=(8 * (n // 8), 8 * (n % 8)), label="disc")
        for n in range(60)
    )
    example = TrainingExample(image=np.zeros((64, 64, 3), np.uint8), segments=crowd, key="crowd")
    trained = finetune(
        FinetuneJob(base=make_base(build, **extra), examples=[example], recipe=RECIPE, output_dir=tmp_path)
    )
    assert torch.isfinite(weights(trained)).all()


def test_finetune_class_with_one_example_is_learnt_beside_the_others(tmp_path):
    examples = [*make_examples(5), *make_examples(1, classes=("star",), first=9)]
    trained = finetune(
        FinetuneJob(
            base=make_base(), examples=examples, recipe=replace(RECIPE, balance=True), output_dir=tmp_path
        )
    )
    assert trained.labels == ("disc", "square", "star")


def test_finetune_unlabelled_objects_are_unlearnt_unless_ignored(tmp_path):
    """Only one object an image is labelled; the others teach that nothing is there, unless marked."""
    knows = load_checkpoint(BASE_MODEL, device="cpu")
    labelled = [one for one in made_up_examples(5, 14, domain="base") if len(one.segments) > 1][:8]
    half = [replace(one, segments=one.segments[:1]) for one in labelled]
    marked = [replace(one, ignored=whole.segments[1:]) for one, whole in zip(half, labelled, strict=True)]
    recipe = replace(RECIPE, steps=25, learning_rate=4e-4, augmentation=STILL)
    before, unlearnt, kept = (
        evaluate_checkpoint(one, labelled).ar
        for one in (
            knows,
            finetune(FinetuneJob(base=knows, examples=half, recipe=recipe, output_dir=tmp_path / "half")),
            finetune(FinetuneJob(base=knows, examples=marked, recipe=recipe, output_dir=tmp_path / "marked")),
        )
    )
    assert kept > 0.75 * before
    assert unlearnt < 0.6 * before


def test_finetune_in_two_processes_equals_both_and_learns_the_same_batch(tmp_path):
    done = []
    base = make_base()
    recipe = replace(RECIPE, batch=2, augmentation=STILL)
    alone = finetune(
        FinetuneJob(base=base, examples=make_examples(), recipe=recipe, output_dir=tmp_path / "alone")
    )
    shared = finetune_in_processes(
        FinetuneJob(base=base, examples=make_examples(), recipe=recipe, output_dir=tmp_path / "shared"),
        TrainingControl(on_progress=lambda progress: done.append((progress.step, progress.loss))),
        processes=2,
    )
    ranks = [(tmp_path / "shared" / "launch" / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert done[-1][0] == 6
    moved = (weights(alone) - weights(base)).norm()
    assert (weights(alone) - weights(shared)).norm() < 1.5 * moved
    assert (weights(shared) - weights(base)).norm() == pytest.approx(float(moved), rel=0.5)


def test_finetune_in_processes_stopped_then_resumed_ends(tmp_path):
    job = FinetuneJob(
        base=make_base(),
        examples=make_examples(),
        recipe=replace(RECIPE, batch=2),
        output_dir=tmp_path,
    )
    with pytest.raises(TrainingStoppedError, match="request to stop"):
        finetune_in_processes(job, TrainingControl(should_stop=lambda: True), processes=2)
    assert states(tmp_path)
    trained = finetune_in_processes(job, processes=2)
    assert torch.isfinite(weights(trained)).all()


def test_finetune_in_processes_failing_raises_its_error(tmp_path):
    base = make_base()
    with torch.no_grad():
        base.model.class_predictor.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite loss"):
        finetune_in_processes(
            FinetuneJob(
                base=base, examples=make_examples(), recipe=replace(RECIPE, batch=2), output_dir=tmp_path
            ),
            processes=2,
        )


def test_finetune_in_processes_cancelled_ends_all_processes(tmp_path):
    class CancelledError(Exception):
        pass

    asked = []

    def cancel():
        asked.append(1)
        if (tmp_path / "launch" / "accelerate.json").exists() and len(asked) > 3:
            raise CancelledError
        return False

    with pytest.raises(CancelledError):
        finetune_in_processes(
            FinetuneJob(
                base=make_base(),
                examples=make_examples(),
                recipe=replace(RECIPE, batch=2, steps=5000),
                output_dir=tmp_path,
            ),
            TrainingControl(should_stop=cancel),
            processes=2,
        )
    own = str(tmp_path / "launch").encode()
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _holds(path, own)]
    assert not running


def _holds(path, text):
    try:
        return text in path.read_bytes()
    except OSError:
        return False
