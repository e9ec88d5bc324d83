"""What is returned for an image that has no prediction."""

from __future__ import annotations

from maskloop.errors import MaskloopError, first_line
from maskloop.types import PredictionFailure

__all__ = ["InferenceError", "prediction_failure"]


class InferenceError(MaskloopError):
    """The model itself failed on an image, for instance for want of memory."""


def prediction_failure(
    source: str, exc: Exception, size_hw: tuple[int, int] | None = None
) -> PredictionFailure:
    """Return an exception as the result of its image.

    Args:
        source: the model's.
        exc: what was raised; its frames are dropped, since they would keep the half decoded image in memory.
        size_hw: of the image, where it is known.
    """
    _drop_frames(exc)
    if isinstance(exc, MaskloopError):
        return PredictionFailure(error=exc)
    return PredictionFailure(
        error=InferenceError(
            f"model {source}, image {size_hw or 'that was prepared'}",
            expected="a prediction",
            got=first_line(exc),
            remedy="try a smaller image, or another device through MASKLOOP_DEVICE",
        )
    )


def _drop_frames(exc: BaseException) -> None:
    error: BaseException | None = exc
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
