"""The gate between a trained model and the annotators: decides by numbers from the frozen holdout alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskloop.types import HoldoutMetrics

__all__ = ["PromotionDecision", "decide", "overall_score"]


@dataclass(frozen=True, kw_only=True)
class PromotionDecision:
    """Whether the challenger takes over, and why."""

    promote: bool
    reason: str  # one sentence with the numbers, kept in the registry
    gain: float  # challenger's overall score minus the champion's; 0 where they cannot be compared


def overall_score(metrics: HoldoutMetrics) -> float:
    """Return the mean of AP50, PQ and mean IoU, 0..1."""
    return (metrics.ap50 + metrics.pq + metrics.miou) / 3


def decide(champion: HoldoutMetrics, challenger: HoldoutMetrics, *, margin: float = 0.0) -> PromotionDecision:
    """Return whether the challenger is better than the champion by more than the margin.

    Args:
        champion: of the model that is served, on the holdout.
        challenger: of the new model, on the same images.
        margin: how much the overall score has to rise, 0..1.

    Returns:
        The decision; no promotion where there is no holdout, where the two were judged on different
        numbers of images, or where a number is not finite.
    """
    if champion.images != challenger.images:
        return _keep(f"judged on different holdouts: {champion.images} and {challenger.images} images")
    if challenger.images == 0:
        return _keep("no holdout image to judge by; annotate more tasks or raise the holdout fraction")
    before, after = overall_score(champion), overall_score(challenger)
    if not (math.isfinite(before) and math.isfinite(after)):
        return _keep(f"a metric is not finite: overall {before} before, {after} after")
    gain = after - before
    promote = gain > margin
    verdict = "rose" if promote else "did not rise"
    reason = (
        f"overall score {verdict} by more than {margin:g} on {challenger.images} holdout images: "
        f"{before:.4f} -> {after:.4f} ("
        f"AP50 {champion.ap50:.3f} -> {challenger.ap50:.3f}, PQ {champion.pq:.3f} -> {challenger.pq:.3f}, "
        f"mIoU {champion.miou:.3f} -> {challenger.miou:.3f})"
    )
    return PromotionDecision(promote=promote, reason=reason, gain=gain)


def _keep(reason: str) -> PromotionDecision:
    return PromotionDecision(promote=False, reason=reason, gain=0.0)
