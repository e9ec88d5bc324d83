"""Which families learn: the ones whose loss sees masks where the pixels are."""

import pytest

from maskloop.errors import TrainingError
from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.lab.tiny_models import build_tiny_eomt, build_tiny_maskformer
from maskloop.learning.training.finetune import FinetuneRecipe, finetune


def test_finetune_maskformer_loss_falls(tmp_path):
    losses = []
    trained = finetune(
        build_tiny_maskformer(SHAPE_CLASSES, seed=0),
        made_up_examples(0, 4, domain="base"),
        recipe=FinetuneRecipe(steps=30, batch=2, learning_rate=1e-3, warmup=2),
        output_dir=tmp_path,
        on_progress=lambda progress: losses.append(progress.loss),
    )
    assert trained.family == "maskformer"
    assert losses[-1] < losses[0]


def test_finetune_eomt_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="served only"):
        finetune(
            build_tiny_eomt(SHAPE_CLASSES, seed=0),
            made_up_examples(0, 1, domain="base"),
            recipe=FinetuneRecipe(steps=1),
            output_dir=tmp_path,
        )
