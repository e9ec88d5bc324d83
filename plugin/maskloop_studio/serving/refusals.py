"""Answers that name why there is none; for interactive requests, whose sender shows them."""

from __future__ import annotations

from collections.abc import Iterable

from maskloop.errors import CodecError, MaskloopError
from maskloop_studio.labelstudio.protocol import PredictTask, RefusedPrediction

__all__ = ["deadline_error", "no_such_image", "refused_entry"]


def refused_entry(tag: str, error: MaskloopError) -> RefusedPrediction:
    """Return an entry without regions that names the error."""
    return RefusedPrediction(result=[], score=0.0, model_version=tag, error=str(error))


def no_such_image(task: PredictTask, names: Iterable[str]) -> CodecError:
    """Return the error of a prompt on an image that the task does not have."""
    return CodecError(
        f"task {task.id}, params.context",
        expected=f"a prompt on one of {', '.join(sorted(set(names)))}"[:200],
        got="one on another image",
        remedy="send the to_name and item_index of the region that was drawn",
    )


def deadline_error() -> MaskloopError:
    """Return the error of a request whose time is over."""
    return MaskloopError(
        "predict",
        expected="a prediction before the request's deadline",
        got="none yet",
        remedy="ask again in a moment",
    )
