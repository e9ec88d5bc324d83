"""The model's forward pass, against transformers' own: same weights, same input.

Weights are drawn at random, with norms, biases and sampling offsets that leave nothing without effect. Such a
model's masks are noise around zero, so what bfloat16 does to masks is judged on the trained models that ship.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..harness.case import Budget, Case, Result, Skip
from ..harness.timing import side_by_side
from ..swin import SIZES, swin_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from maskloop.segmentation.fast.forward import ForwardPlan

__all__ = [
    "CASES",
    "FAMILIES",
    "compare_half",
    "equal_in_double",
    "equal_in_float",
    "random_inputs",
    "random_model",
    "run_ours",
    "run_plain",
    "trained_iou",
]

FAMILIES = ("mask2former", "oneformer")
QUESTION = (49406, 518, 10549, 533, 27725, 49407)  # "the task is instance", as CLIP's tokenizer has it
EXACT, SHARE_EXACT = 1e-4, 0.95  # a logit of a layer's mask that is 0 to rounding may hide a pixel or not:
# transformers with one thread instead of two differs from itself in the same way, see `equal_in_float`
MEDIAN_EXACT = 1e-5
SEEDS = (2, 3, 4)
LEAST_IOU, LEAST_CORRELATION = 0.99, 0.999
TRAINED_IMAGES = 16


def forward_gpu(budget: Budget) -> list[Result]:
    """Run both families on CUDA: ours in bfloat16, plain and compiled, against two ways of transformers."""
    import torch

    import maskloop.segmentation.fast.forward as ours

    if not torch.cuda.is_available():
        raise Skip("no CUDA device")
    cuda = torch.device("cuda")
    eager = ours.ForwardPlan(precision="bfloat16")
    results = []
    for family in FAMILIES[:1] if budget.quick else FAMILIES:
        for backbone in ("swin-t",) if budget.quick else SIZES:
            for batch in (1,) if budget.quick else (1, 16):
                model = random_model(family, backbone, cuda)
                inputs = random_inputs(family, (1024, 1024), batch, cuda)
                compiled = torch.compile(functools.partial(run_plain, model), dynamic=False)
                references: dict[str, tuple[Callable[[], Any], float]] = {
                    "transformers, float32 eager": (functools.partial(run_plain, model, inputs), 4.0),
                    "transformers, bfloat16 compiled": (functools.partial(_half, compiled, inputs), 1.0),
                }
                truth = run_plain(model, inputs)
                for name, (reference, aim) in references.items():
                    for ways, plan in (
                        ("eager", eager),
                        ("compiled", ours.ForwardPlan(precision="bfloat16", compiled=True)),
                    ):
                        torch.cuda.reset_peak_memory_stats()
                        pair = side_by_side(
                            functools.partial(run_ours, model, inputs, plan),
                            reference,
                            budget,
                            warmup=3,
                            synchronise=torch.cuda.synchronize,
                        )
                        results.append(
                            pair.result(
                                f"forward-gpu/{family} {backbone} 1024 px batch {batch} {ways}",
                                images=batch,
                                against=name,
                                same=compare_half(pair.ours, truth),
                                aim=aim,
                                notes={"peak_bytes_of_both": torch.cuda.max_memory_allocated()},
                            )
                        )
                del model, truth
                torch.cuda.empty_cache()
    return results


def random_model(family: str, backbone: str, device: torch.device) -> Any:
    """Return a model of transformers in its published form: 100 queries, OneFormer 150."""
    import torch
    import transformers

    torch.manual_seed(0)
    swin = swin_config(backbone, drop_path_rate=0.3)
    if family == "mask2former":
        config = transformers.Mask2FormerConfig(backbone_config=swin, num_labels=80)
        model = transformers.Mask2FormerForUniversalSegmentation(config)
    else:
        config = transformers.OneFormerConfig(backbone_config=swin, num_labels=150, is_training=False)
        model = transformers.OneFormerForUniversalSegmentation(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 or "attention_weights" in name or "bias_table" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "sampling_offsets" in name:
                weight.add_(torch.randn_like(weight) * 0.05)
    return model.to(device).eval()


def random_inputs(
    family: str, size_hw: tuple[int, int], batch: int, device: torch.device, seed: int = 1
) -> dict[str, Tensor]:
    """Return what the model is called with."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, 3, *size_hw, generator=generator)
    inputs = {"pixel_values": pixels.to(device)}
    if family == "oneformer":
        ids = torch.zeros(batch, 77, dtype=torch.int64)
        ids[:, : len(QUESTION)] = torch.tensor(QUESTION)
        inputs["task_inputs"] = ids.to(device)
    return inputs


def run_plain(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits of classes and masks as transformers computes them."""
    import torch

    with torch.inference_mode():
        output = model(**inputs)
    return output.class_queries_logits, output.masks_queries_logits


def run_ours(model: Any, inputs: dict[str, Tensor], plan: ForwardPlan) -> tuple[Tensor, Tensor]:
    """Return the same as predictions get it."""
    import torch

    from maskloop.segmentation.fast.forward import forward_pass

    with torch.inference_mode():
        output = forward_pass(
            model, inputs["pixel_values"], task_inputs_bt=inputs.get("task_inputs"), plan=plan
        )
    return output.class_queries_logits, output.masks_queries_logits


def _half(call: Callable[..., Any], inputs: dict[str, Tensor]) -> Any:
    import torch

    with torch.autocast("cuda", torch.bfloat16):
        return call(inputs)


def equal_in_float(model: Any, size_hw: tuple[int, int], plan: ForwardPlan) -> str:
    """Compare in float32 on several inputs, and transformers with itself, one thread against all."""
    import torch

    family, threads = model.config.model_type, torch.get_num_threads()
    ours, theirs = [], []
    for seed in SEEDS:
        inputs = random_inputs(family, size_hw, 1, torch.device("cpu"), seed)
        truth = run_plain(model, inputs)
        ours.append(_apart(run_ours(model, inputs, plan), truth))
        try:
            torch.set_num_threads(1)
            theirs.append(_apart(run_plain(model, inputs), truth))
        finally:
            torch.set_num_threads(threads)
    for median, share, most in ours:
        assert median <= MEDIAN_EXACT, f"half of the logits differ by {median:.2g}"
        assert share >= SHARE_EXACT, f"{share:.3f} of the logits agree to {EXACT}, the worst to {most:.2g}"
    said = (
        ", ".join(f"{share:.4f} (worst {most:.0e})" for _, share, most in each) for each in (ours, theirs)
    )
    return f"logits to {EXACT}: {next(said)}; transformers by one thread: {next(said)}"


def _apart(one: Any, other: Any) -> tuple[float, float, float]:
    """Return median, share within `EXACT` and largest of the differences of all logits."""
    import torch

    apart = torch.cat([(mine - theirs).abs().flatten() for mine, theirs in zip(one, other, strict=True)])
    return float(apart.median()), float(apart.le(EXACT).float().mean()), float(apart.max())


def equal_in_double(model: Any) -> str:
    """Compare in float64, where rounding moves no logit across 0, on a small input."""
    import torch

    from maskloop.segmentation.fast.model_forward import lean_forward

    inputs = random_inputs(model.config.model_type, (224, 320), 2, torch.device("cpu"))
    pixels = inputs["pixel_values"].double()
    model.double()
    theirs = run_plain(model, inputs | {"pixel_values": pixels})
    with torch.inference_mode():
        output = lean_forward(model, pixels, inputs.get("task_inputs"), swin=True)
    model.float()
    ours = output.class_queries_logits, output.masks_queries_logits
    worst = max(float((mine - other).abs().max()) for mine, other in zip(ours, theirs, strict=True))
    assert worst <= EXACT, f"in float64 logits differ by {worst:.2g}"
    return f"to {worst:.1g} in float64"


def compare_half(ours: Any, reference: Any) -> str:
    import torch

    pair = torch.stack((ours[1].float().flatten(), reference[1].float().flatten()))
    correlation = float(torch.corrcoef(pair)[0, 1])
    assert correlation >= LEAST_CORRELATION, f"mask logits correlate by {correlation:.4f}"
    return f"mask logits correlate by {correlation:.5f}"


def trained_iou(family: str, plan: ForwardPlan) -> str:
    """Compare the masks of found objects in the shipped trained model, ours against transformers' float32."""
    import torch

    from maskloop.lab.synthetic.shapes import make_image
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.segmentation.fast.forward import ForwardPlan
    from maskloop.segmentation.predict import run_model
    from maskloop.segmentation.preprocess import images_to_batch
    from maskloop.settings import BASE_MODEL, BASE_ONEFORMER
    from maskloop.types import SegmentationTask

    folder = BASE_MODEL if family == "mask2former" else BASE_ONEFORMER
    plain = ForwardPlan(precision="float32", accelerate=False)
    checkpoint = load_checkpoint(folder, device="cpu", plan=plain)
    images = [make_image(seed).image_hwc for seed in range(TRAINED_IMAGES)]
    batch = images_to_batch(images, checkpoint.preprocessing, checkpoint.device)
    theirs, mine = (
        run_model(replace(checkpoint, plan=way), batch, SegmentationTask.INSTANCE) for way in (plain, plan)
    )
    found_bq = theirs.class_queries_logits.softmax(-1)[..., :-1].amax(-1) > 0.5
    one, other = theirs.masks_queries_logits[found_bq] > 0, mine.masks_queries_logits[found_bq] > 0
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    iou_n = both[either > 0] / either[either > 0]
    kinds = torch.stack([said.class_queries_logits[found_bq].argmax(-1) for said in (theirs, mine)])
    agree = float((kinds[0] == kinds[1]).float().mean())
    assert iou_n.mean() >= LEAST_IOU, f"masks of the trained model have IoU {iou_n.mean():.4f}"
    return (
        f"{len(iou_n)} objects of the trained tiny model: IoU {iou_n.mean():.4f}, classes agree {agree:.3f}"
    )


CASES = [
    Case(name="forward-gpu", summary="the forward pass on CUDA, against transformers'", run=forward_gpu),
]
