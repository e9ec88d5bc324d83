"""Whether a model predicts in bfloat16 as in float32 on this CPU: checked on the first images it is given.

CPUs with bfloat16 instructions run a large model about twice as fast in it. The first images are predicted in
both; float32 is what callers get meanwhile. It is checked in each process, as that takes seconds only.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.masks import segment_iou
from maskloop.segmentation.batch_size import parameter_count
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast.forward import cpu_has_bfloat16
from maskloop.types import Prediction, Segment

__all__ = ["PrecisionChecks", "agreement"]

logger = logging.getLogger(__name__)
LARGE_PARAMETERS = 5_000_000  # a smaller model gains nothing
LEAST_SEGMENTS = 20  # compared before the decision
MOST_IMAGES = 12  # after which it is decided with fewer
LEAST_IOU = 0.9  # of a mask with its partner
LEAST_AGREEING = 0.95  # share of segments with such a partner
NEAR_THRESHOLD = (
    0.03  # of score: a segment this near to the lowest one may be there in one and not in the other
)


class _Check:
    """What was seen of one model."""

    def __init__(self) -> None:
        self.images = self.segments = self.agreeing = 0
        self.passed: bool | None = None  # None: not decided yet


class PrecisionChecks:
    """The checks of the models of one process; safe to use from many threads."""

    def __init__(self, *, bfloat16_cpu: bool | None = None) -> None:
        """Args:
        bfloat16_cpu: whether this CPU has bfloat16 instructions; None asks torch.
        """
        self._lock = threading.Lock()
        self._checks: WeakKeyDictionary[torch.nn.Module, _Check] = WeakKeyDictionary()
        self._bfloat16_cpu = cpu_has_bfloat16() if bfloat16_cpu is None else bfloat16_cpu

    def chosen(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint as it is to be run now: in bfloat16 once that has passed."""
        check = self._find(checkpoint)
        return _in_bfloat16(checkpoint) if check is not None and check.passed else checkpoint

    def rival(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Return the checkpoint in bfloat16 while that is to be compared; None where nothing is."""
        check = self._find(checkpoint)
        return _in_bfloat16(checkpoint) if check is not None and check.passed is None else None

    def compare(
        self, checkpoint: Checkpoint, exact: Prediction, fast: Prediction, *, least_score: float
    ) -> None:
        """Take in the predictions of one image in float32 and in bfloat16; decide when enough were seen."""
        check = self._find(checkpoint)
        if check is None:
            return
        agreeing, segments = agreement(exact, fast, least_score=least_score)
        with self._lock:
            check.images += 1
            check.agreeing += agreeing
            check.segments += segments
            enough = check.segments >= LEAST_SEGMENTS or check.images >= MOST_IMAGES
            if check.passed is not None or not enough:
                return
            check.passed = check.segments > 0 and check.agreeing >= LEAST_AGREEING * check.segments
        _log_choice(checkpoint, check)

    def refuse(self, checkpoint: Checkpoint, error: Exception) -> None:
        """Stay with float32, since bfloat16 failed."""
        check = self._find(checkpoint)
        if check is None:
            return
        with self._lock:
            decided, check.passed = check.passed is not None, False
        if not decided:
            _log_choice(checkpoint, check, error=first_line(error))

    def _find(self, checkpoint: Checkpoint) -> _Check | None:
        if not (self._bfloat16_cpu and checkpoint.plan.precision == "auto" and checkpoint.plan.accelerate):
            return None
        if checkpoint.device.type != "cpu":
            return None
        with self._lock:
            check = self._checks.get(checkpoint.model)
            if check is None:
                if parameter_count(checkpoint.model) < LARGE_PARAMETERS:
                    return None
                check = self._checks[checkpoint.model] = _Check()
            return check


def agreement(exact: Prediction, fast: Prediction, *, least_score: float) -> tuple[int, int]:
    """Return how many segments of either prediction have a partner in the other, and how many there are.

    A partner has the same label and a mask IoU of at least 0.9. Segments without a partner and with a score
    near the threshold are left out: rounding decides whether such a segment is there.
    """
    pairs = ((exact.segments, fast.segments), (fast.segments, exact.segments))
    found = missing = 0
    for segments, others in pairs:
        for segment in segments:
            if _has_partner(segment, others):
                found += 1
            elif segment.score > least_score + NEAR_THRESHOLD:
                missing += 1
    return found, found + missing


def _log_choice(checkpoint: Checkpoint, check: _Check, **facts: Any) -> None:
    log_action(
        logger,
        "precision_chosen",
        model_source=checkpoint.source,
        precision="bfloat16" if check.passed else "float32",
        images=check.images,
        segments=check.segments,
        agreeing=check.agreeing,
        **facts,
    )


def _has_partner(segment: Segment, others: tuple[Segment, ...]) -> bool:
    return any(other.label == segment.label and segment_iou(segment, other) >= LEAST_IOU for other in others)


def _in_bfloat16(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, plan=replace(checkpoint.plan, precision="bfloat16"))
