"""The published checkpoints that `maskloop models suggest` picks from; published.json has the table.

Sizes and licences are those of the model cards and file lists on the hub, and of the model zoo's own licence
section; class lists are those of the data sets, as in facebookresearch/Mask2Former. A checkpoint's own
`config.json` decides when it is loaded.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

__all__ = ["PublishedCheckpoint", "published_checkpoints"]


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """A checkpoint on the Hugging Face hub."""

    name: str  # owner/model: what MASKLOOP_MODEL takes
    family: str  # mask2former or oneformer
    task: str  # that it was trained for; "any": one model for all three
    dataset: str
    classes: tuple[str, ...]
    megabytes: int  # of the weights
    licence: str
    forbids: str  # what the licence forbids
    weights: str  # "safetensors"; "pickle": has to be converted before it can be loaded

    @property
    def must_be_converted(self) -> bool:
        """Whether the hub's main branch has no safetensors; pickled weights are not loaded."""
        return self.weights == "pickle"


@functools.cache
def published_checkpoints() -> tuple[PublishedCheckpoint, ...]:
    """Return all of them, in the order of the file."""
    text = resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return tuple(
        PublishedCheckpoint(
            classes=tuple(content["datasets"][raw["dataset"]]),
            forbids=content["licences"][raw["licence"]]["forbids"],
            **raw,
        )
        for raw in content["checkpoints"]
    )
