"""What an annotator did to the prediction that an annotation was made from, on one image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import CodecError, ResourceError
from maskloop.learning.evaluation.region_edits import count_outcomes, trace_with_removed
from maskloop.log import log_action
from maskloop.types import EditCounts, Segment, SegmentOutcome
from maskloop_studio.formats import count_edits

if TYPE_CHECKING:
    from maskloop_studio.formats import AnnotationContent

__all__ = ["PredictionEdits", "edits_of_prediction"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictionEdits:
    """The edits on one image."""

    total: EditCounts
    by_label: Mapping[str, EditCounts] | None  # None: counted by `origin`, so the kinds are not known
    outcomes: tuple[SegmentOutcome, ...] | None = None  # of the predicted regions; None: the same
    deleted: tuple[Segment, ...] | None = None  # of the predicted regions; None: the same


def edits_of_prediction(
    content: AnnotationContent,
    regions: Sequence[Mapping[str, Any]],
    predicted: Sequence[Mapping[str, Any]] | None,
    *,
    read: Callable[[Sequence[Any]], AnnotationContent],
    place: str,
) -> PredictionEdits:
    """Compare an annotation with its prediction by geometry and label; without a prediction, by `origin`.

    Label Studio 1.23 leaves `origin` at "prediction" where a vertex of a polygon was dragged. A prediction
    that cannot be read or compared is counted by `origin` too, with a warning.

    Args:
        content: the annotation on this image, as it was read.
        regions: its regions on this image.
        predicted: the prediction's regions on this image; None where there is no prediction (any more).
        read: reads regions of this image.
        place: names the annotation.
    """
    if predicted is not None and content.set_aside is None:
        try:
            outcomes, deleted = trace_with_removed(_read_whole(predicted, read), content.segments)
            by_label = count_outcomes(outcomes)
            return PredictionEdits(
                total=sum(by_label.values(), EditCounts()),
                by_label=by_label,
                outcomes=tuple(one for one in outcomes if one.outcome != "added"),
                deleted=deleted,
            )
        except (CodecError, ResourceError) as exc:
            log_action(logger, "edits_counted_by_origin", level=logging.WARNING, place=place, reason=str(exc))
    ids = {str(region["id"]) for region in predicted or () if "id" in region}
    return PredictionEdits(total=count_edits(regions, ids), by_label=None)


def _read_whole(
    predicted: Sequence[Mapping[str, Any]], read: Callable[[Sequence[Any]], AnnotationContent]
) -> tuple[Any, ...]:
    content = read(predicted)
    if content.set_aside is not None:
        raise CodecError(
            "the prediction",
            expected="regions that can be read",
            got=content.set_aside,
            remedy="none is needed: its annotation is learnt from all the same",
        )
    return content.segments
