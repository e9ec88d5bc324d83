"""A training step: ours against the loop of transformers' own example."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..harness.case import Budget, Case, Result, Spread

if TYPE_CHECKING:
    import torch

    from ..train_loops import Load, Measured

__all__ = ["CASES"]

FAMILIES = ("mask2former", "oneformer")
EDGES = (512, 1024)
LOSS_BAND, GRADIENT_BAND = 1e-3, 1e-2  # float32, of transformers' own value
CURVE_BAND, CURVE_STEPS = 0.15, 100  # the curves look at other random points


def run(budget: Budget) -> list[Result]:
    """Compare both families at both sizes; a tiny model where it has to be quick."""
    edges = (64,) if budget.quick else EDGES
    return [result for family in FAMILIES for result in _of_family(family, edges, budget)]


def _of_family(family: str, edges: Sequence[int], budget: Budget) -> list[Result]:
    import torch

    from ..train_checks import curve_gap

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The precision that "auto" takes for a large model; quick runs compare what tiny ones take
    precision = "float32" if budget.quick else _precision(device)
    gap, _, _ = curve_gap(family, precision, 10 if budget.quick else CURVE_STEPS)
    assert gap <= CURVE_BAND, f"{family}: loss curves {gap:.1%} apart, expected {CURVE_BAND:.0%} at most"
    return [
        _compared(_load(family, edge, budget, device), budget, f"{precision} curve within {gap:.1%}")
        for edge in edges
    ]


def _load(family: str, edge: int, budget: Budget, device: torch.device) -> Load:
    from ..train_loops import Load

    on_gpu = device.type == "cuda"
    batch = 8 if on_gpu else (1 if edge > EDGES[0] else 2)
    steps, warmup = (20, 5) if on_gpu else (2, 1)
    return Load(
        family=family,
        edge=edge,
        batch=batch,
        steps=steps,
        warmup=warmup,
        tiny=budget.quick,
        device=device,
    )


def _compared(load: Load, budget: Budget, curve: str) -> Result:
    from ..train_checks import step_gap
    from ..train_loops import made_examples, train_both

    gap = step_gap(load)
    assert gap.loss <= LOSS_BAND, f"{load}: losses {gap.loss:.1e} apart"
    assert gap.gradient <= GRADIENT_BAND, f"{load}: gradients {gap.gradient:.1e} apart"
    examples = made_examples(load.edge)
    turns: list[tuple[Measured, Measured]] = []
    end = time.perf_counter() + budget.seconds
    while not turns or (time.perf_counter() < end and not budget.quick):
        turns.append(train_both(load, examples))
    ours, reference = zip(*turns, strict=True)
    aim = 3.0 if load.device.type == "cuda" else 2.0
    return Result(
        name=f"train-step/{load.family} {'tiny' if load.tiny else 'Swin-T'} {load.edge}",
        unit="images/s",
        ours=_spread(ours),
        reference=_spread(reference),
        reference_name="transformers run_instance_segmentation",
        better="more",
        aim=None if load.tiny else aim,
        same=f"float32 loss to {gap.loss:.0e}, gradient to {gap.gradient:.0e}; {curve}",
        notes={
            "batch": load.batch,
            "ours_cpu_s": round(min(one.cpu_s for one in ours), 3),
            "reference_cpu_s": round(min(one.cpu_s for one in reference), 3),
            "ours_peak_mib": ours[-1].peak_mib,
            "reference_peak_mib": reference[-1].peak_mib,
        },
    )


def _spread(turns: Sequence[Measured]) -> Spread:
    return Spread.of([rate for one in turns for rate in one.images_per_s])


def _precision(device: torch.device) -> str:
    from maskloop.learning.training.recipe import LARGE_PARAMETERS, FinetuneRecipe
    from maskloop.learning.training.trainer import uses_bfloat16

    return "bfloat16" if uses_bfloat16(FinetuneRecipe(), device, LARGE_PARAMETERS) else "float32"


CASES = [
    Case(
        name="train-step",
        summary="images/s of a fine-tuning, Swin-T 512 and 1024, against transformers' own example",
        run=run,
    )
]
