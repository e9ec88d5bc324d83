"""What `maskloop models suggest` prints."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from typing import TYPE_CHECKING

from maskloop.shipped import BASE_PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maskloop_studio.projects.suggestion import Suggestion

__all__ = ["suggestion_lines", "suggestions_as_json"]


def suggestion_lines(
    project_id: int, labels: Sequence[str], suggestions: Sequence[Suggestion], *, width: int | None = None
) -> list[str]:
    """Return the suggestions for a person to read, no line wider than the terminal.

    Args:
        project_id: Label Studio's number.
        labels: all labels of the project.
        suggestions: the best first; those that know no label and no similar class are only counted.
        width: characters a line; None: as wide as the terminal.
    """
    columns = width or shutil.get_terminal_size().columns
    useful = [one for one in suggestions if one.known or one.similar]
    lines = [line for one in useful for line in _of_one(one, len(labels), columns)]
    others = len(suggestions) - len(useful)
    if others:
        lines += _wrapped(f"{others} further published checkpoints know none of the labels.", columns, "")
    lines += _wrapped(
        f"Set MASKLOOP_MODEL to a name before the first `maskloop connect {project_id}`. "
        f"Labels that no checkpoint knows are learnt: `maskloop connect {project_id} --new-labels`. "
        f"Where no published one may be used: {BASE_PHOTOS.name}, which comes with maskloop (7 MB, "
        "Apache-2.0), has seen objects in photo material, without classes.",
        columns,
        "",
    )
    return lines


def suggestions_as_json(labels: Sequence[str], suggestions: Sequence[Suggestion]) -> str:
    """Return all suggestions as JSON."""
    rows = [
        {
            **dataclasses.asdict(one.checkpoint),
            "classes": len(one.checkpoint.classes),
            "must_be_converted": one.checkpoint.must_be_converted,
            "known": one.known,
            "similar": one.similar,
        }
        for one in suggestions
    ]
    return json.dumps({"labels": list(labels), "checkpoints": rows})


def _of_one(one: Suggestion, count: int, columns: int) -> Iterator[str]:
    checkpoint = one.checkpoint
    yield checkpoint.name
    yield from _wrapped(
        f"knows {len(one.known)} of {count} labels{': ' if one.known else ''}{', '.join(one.known)}", columns
    )
    yield from _wrapped(
        f"{checkpoint.family}, {_task(checkpoint.task)}, {checkpoint.dataset} "
        f"({len(checkpoint.classes)} classes), {checkpoint.megabytes} MB",
        columns,
    )
    yield from _wrapped(f"licence {checkpoint.licence}; forbids {checkpoint.forbids}", columns)
    for label, classes in one.similar.items():
        value = f'<Label value="{label}" predicted_values="{",".join(classes)}"/>'
        yield from _wrapped(f"with {value} it also draws {label}", columns)
    if checkpoint.must_be_converted:
        yield from _wrapped(
            "its weights are pickled, which can run code: where you trust its author, load it once with "
            "transformers, save it with save_pretrained, and set MASKLOOP_MODEL to that folder",
            columns,
        )
    yield ""


def _wrapped(text: str, columns: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent + indent)


def _task(task: str) -> str:
    return "all three tasks" if task == "any" else f"{task} segmentation"
