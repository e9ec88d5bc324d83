"""Models whose images hold more objects than they have queries get more of them."""

import numpy as np
import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.training.finetune import MOST_QUERIES, finetune, wanted_queries
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.families import regrow_queries
from maskloop.types import Segment


def crowded(count, *, label="disc", boxes=0, key="0"):
    """Return an image with a grid of small squares."""
    size = 96
    side = 4
    places = [(y, x) for y in range(0, size - side, 6) for x in range(0, size - side, 6)]
    parts = [
        Segment(mask_hw=np.ones((side, side), bool), offset_yx=place, label=label)
        for place in places[: count + boxes]
    ]
    image_hwc = np.zeros((size, size, 3), np.uint8)
    for part in parts:
        top, left, bottom, right = part.box_yxyx
        image_hwc[top:bottom, left:right] = 255
    return TrainingExample(
        image=image_hwc, segments=tuple(parts[:count]), boxes=tuple(parts[count:]), key=key
    )


@pytest.mark.parametrize(
    ("counts", "known", "wanted"),
    [
        ([3, 20], 20, 20),
        ([21], 20, 30),  # 1.25 times, up to the next ten
        ([40], 20, 50),
        ([100], 40, 130),
        ([5] * 19 + [200], 20, 20),  # one image in twenty may lose objects
        ([5] * 18 + [50, 50], 20, 70),
        ([1000], 100, MOST_QUERIES),
        ([1000], 400, 400),  # never fewer than there are
        ([0], 20, 20),
    ],
)
def test_nearly_all_images_have_a_query_for_each_object(counts, known, wanted):
    examples = [crowded(0) for _ in counts]
    many = [
        TrainingExample(
            image=example.image,
            segments=(Segment(mask_hw=np.ones((1, 1), bool), offset_yx=(0, 0), label="disc"),) * count,
            key="",
        )
        for example, count in zip(examples, counts, strict=True)
    ]
    assert wanted_queries(many, known, stuff_labels=()) == wanted


def test_boxes_need_queries_and_stuff_needs_one():
    assert wanted_queries([crowded(15, boxes=15)], 20, stuff_labels=()) == 40
    assert wanted_queries([crowded(30)], 20, stuff_labels=("disc",)) == 20
    assert wanted_queries([crowded(30)], 20, stuff_labels=("sky",)) == 40


def test_regrown_queries_keep_the_old_ones_first():
    model = build_tiny_mask2former(SHAPE_CLASSES, seed=0).model
    module = model.model.transformer_module
    before = [getattr(module, name).weight.clone() for name in ("queries_embedder", "queries_features")]
    known = len(before[0])
    regrow_queries(model, 2 * known + 3, seed=1)
    after = [module.queries_embedder.weight, module.queries_features.weight]
    for old_nc, new_nc in zip(before, after, strict=True):
        assert new_nc.requires_grad
        assert torch.equal(new_nc[:known], old_nc)
        moved = ((new_nc[known : 2 * known] - old_nc).std() / old_nc.std()).detach()
        assert 0.05 < moved.item() < 0.2
    assert model.config.num_queries == 2 * known + 3
    with pytest.raises(ValueError, match="at least"):
        regrow_queries(model, known, seed=1)


def test_finetune_crowded_images_have_all_their_objects(tmp_path, caplog):
    caplog.set_level("INFO")
    base = build_tiny_mask2former(SHAPE_CLASSES, seed=0)
    known = base.model.config.num_queries
    job = FinetuneJob(
        base=base,
        examples=[crowded(known + 25)],
        recipe=FinetuneRecipe(steps=2, batch=1, warmup=1),
        output_dir=tmp_path / "work",
    )
    trained = finetune(job)
    assert "objects_dropped" not in caplog.text
    assert "queries_added" in caplog.text
    assert base.model.config.num_queries == known, "the base is left as it is"
    folder = save_checkpoint(trained, tmp_path / "saved")
    queries = trained.model.config.num_queries
    assert queries >= known + 25
    assert load_checkpoint(folder, device="cpu").model.config.num_queries == queries
    plain = Mask2FormerForUniversalSegmentation.from_pretrained(folder)
    assert plain(torch.zeros(1, 3, 64, 64)).masks_queries_logits.shape[1] == queries


def test_finetune_other_families_say_that_objects_are_lost(tmp_path, caplog):
    base = build_tiny_oneformer(SHAPE_CLASSES, seed=0, training=True)
    job = FinetuneJob(
        base=base,
        examples=[crowded(base.model.config.num_queries + 5)],
        recipe=FinetuneRecipe(steps=1, batch=1, warmup=0),
        output_dir=tmp_path,
    )
    finetune(job)
    assert "queries_too_few" in caplog.text
    assert "objects_dropped" in caplog.text
