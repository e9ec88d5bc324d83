"""Training with denoising queries: the result is a plain checkpoint, and a kill changes nothing."""

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.test_finetune import RECIPE, make_base, make_examples, weights
from transformers import Mask2FormerForUniversalSegmentation, OneFormerForUniversalSegmentation

from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingStoppedError
from maskloop.segmentation.checkpoint import save_checkpoint

CLASSES = {
    "mask2former": Mask2FormerForUniversalSegmentation,
    "oneformer": OneFormerForUniversalSegmentation,
}
EMBEDDINGS = "criterion.denoised_classes.weight"


def _train(folder, base, control=None, **changes):
    job = FinetuneJob(
        base=base, examples=make_examples(), recipe=replace(RECIPE, **changes), output_dir=folder
    )
    return finetune(job, *([control] if control is not None else []))


@pytest.mark.parametrize("family", CLASSES)
def test_finetune_with_denoising_gives_a_plain_checkpoint(tmp_path, family):
    base = make_base(family)
    plain, taught = (_train(tmp_path / str(one), base, denoise=one) for one in (False, True))
    assert not torch.equal(weights(plain), weights(taught)), "it teaches something"
    assert plain.model.state_dict().keys() == taught.model.state_dict().keys()
    folder = save_checkpoint(taught, tmp_path / "saved")
    loaded, told = CLASSES[family].from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    saved = torch.cat([one.detach().flatten() for one in loaded.parameters()])
    torch.testing.assert_close(saved.float(), weights(taught).float())  # one of OneFormer's is float64


@pytest.mark.parametrize("family", CLASSES)
def test_finetune_with_denoising_stopped_then_resumed_equals_uninterrupted(tmp_path, family):
    base = make_base(family)
    whole = _train(tmp_path / "whole", base, denoise=True)
    calls = iter(range(100))
    with pytest.raises(TrainingStoppedError):
        _train(
            tmp_path / "parts",
            base,
            TrainingControl(should_stop=lambda: next(calls) == 5),
            denoise=True,
        )
    states = sorted((tmp_path / "parts" / "trainer").glob("checkpoint-*/model.safetensors"))
    assert all(EMBEDDINGS in load_file(state) for state in states)
    assert states
    resumed = _train(tmp_path / "parts", base, denoise=True)
    assert torch.allclose(weights(resumed), weights(whole), atol=1e-6)


def test_finetune_with_denoising_killed_process_resumes_to_the_same_weights(tmp_path):
    victim = multiprocessing.get_context("spawn").Process(target=_train_until_killed, args=(tmp_path / "a",))
    victim.start()
    victim.join(120)
    assert victim.exitcode == -signal.SIGKILL
    steps = []
    control = TrainingControl(should_stop=lambda: steps.append(1) is not None)
    resumed = _train(tmp_path / "a", make_base(), control, denoise=True)
    assert len(steps) == RECIPE.steps - 4, "it continued"
    assert torch.allclose(weights(resumed), weights(_train(tmp_path / "b", make_base(), denoise=True)))


def _train_until_killed(folder):
    calls = iter(range(100))

    def kill():
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    _train(folder, make_base(), TrainingControl(should_stop=kill), denoise=True)
