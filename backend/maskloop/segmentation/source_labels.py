"""The classes of a checkpoint, read from its `config.json` alone: no weights are downloaded or loaded."""

from __future__ import annotations

from maskloop.segmentation.hub import find_config, read_json
from maskloop.segmentation.load_checks import class_names

__all__ = ["source_labels"]


def source_labels(source: str) -> tuple[str, ...]:
    """Return the class names of a checkpoint in the order of its class head.

    Args:
        source: a local folder, or a name on the Hugging Face hub.

    Raises:
        ModelLoadError: no such folder or name, or no usable class names in its `config.json`.
    """
    return tuple(class_names(read_json(find_config(source), source), source).values())
