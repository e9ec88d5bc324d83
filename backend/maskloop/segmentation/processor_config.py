"""The image processor and the class kinds of a checkpoint's folder, in each form that transformers saves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskloop.segmentation.class_kinds import published_stuff
from maskloop.segmentation.hub import read_json

__all__ = [
    "ADDED_KEY",
    "CLASS_INFO_FILE",
    "PREPROCESSOR_FILE",
    "THINGS_KEY",
    "UNDECLARED_KEY",
    "ClassSource",
    "read_added_classes",
    "read_class_kinds",
    "read_processor",
]

PREPROCESSOR_FILE = "preprocessor_config.json"  # of an image processor alone, and of all up to transformers 4
PROCESSOR_FILE = "processor_config.json"  # of a processor with its tokenizer, from transformers 5 on
CLASS_INFO_FILE = "class_info.json"  # OneFormer's own form: {"0": {"name": "circle", "isthing": 1}}
THINGS_KEY = "maskloop_thing_ids"  # in config.json
UNDECLARED_KEY = "maskloop_undeclared_ids"
ADDED_KEY = "maskloop_added_ids"
FAMILY_DEFAULTS = "sizes 800/1333 and ImageNet's mean and deviation"


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """Things and stuff as a checkpoint's own files give them; positions of classes in the head."""

    thing_ids: frozenset[int]
    undeclared_ids: frozenset[int]  # classes that no file names; they are in thing_ids as well


def read_processor(folder: Path, source: str | Path) -> tuple[Mapping[str, Any], str | None]:
    """Return the keys of a folder's image processor, and a warning where it has none.

    Read as transformers does: the `image_processor` inside `processor_config.json` first, else
    `preprocessor_config.json`, in which older versions wrote `feature_extractor_type` for
    `image_processor_type` and a number for `size`.

    Raises:
        ModelLoadError: a file that is not an object in JSON.
    """
    if (folder / PROCESSOR_FILE).exists():
        nested = read_json(folder / PROCESSOR_FILE, source).get("image_processor")
        if isinstance(nested, Mapping):
            return nested, None
    if (folder / PREPROCESSOR_FILE).exists():
        return read_json(folder / PREPROCESSOR_FILE, source), None
    return {}, (
        f"no {PREPROCESSOR_FILE} and no {PROCESSOR_FILE} with an image processor: images are resized "
        f"and normalised with {FAMILY_DEFAULTS}, which may not be what "
        "it was trained on; add the file that belongs to it"
    )


def read_class_kinds(
    folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any], *, names: Mapping[int, str]
) -> ClassSource:
    """Return which classes are things: from our own key, the processor, a class file, or published lists.

    Args:
        folder: the checkpoint's.
        config: content of its `config.json`.
        processor: as `read_processor` returns it.
        names: id of config.json -> label, in the order of the head.

    Raises:
        ValueError, TypeError, KeyError: a value of the wrong kind.
    """
    position = {class_id: index for index, class_id in enumerate(names)}
    everything = frozenset(position.values())
    if config.get(THINGS_KEY) is not None:
        undeclared = _positions(config.get(UNDECLARED_KEY) or (), position)
        return ClassSource(thing_ids=_positions(config[THINGS_KEY], position), undeclared_ids=undeclared)
    metadata = processor.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("thing_ids") is not None:
        return ClassSource(thing_ids=_positions(metadata["thing_ids"], position), undeclared_ids=frozenset())
    # by its name alone: what a checkpoint names must lie in its own folder
    info = folder / Path(str(processor.get("class_info_file") or CLASS_INFO_FILE)).name
    if info.is_file():
        classes = json.loads(info.read_text(encoding="utf-8"))
        things = [index for index, entry in classes.items() if entry["isthing"]]
        return ClassSource(thing_ids=_positions(things, position), undeclared_ids=frozenset())
    stuff = published_stuff(tuple(names.values()))
    if stuff is None:
        return ClassSource(thing_ids=everything, undeclared_ids=everything)
    things = [class_id for class_id, name in names.items() if name not in stuff]
    return ClassSource(thing_ids=_positions(things, position), undeclared_ids=frozenset())


def read_added_classes(config: Mapping[str, Any], *, names: Mapping[int, str]) -> frozenset[int]:
    """Return the positions of the classes that fine-tunings added to their base.

    Args:
        config: content of `config.json`.
        names: id of config.json -> label, in the order of the head.

    Raises:
        ValueError, TypeError: a value of the wrong kind.
    """
    return _positions(config.get(ADDED_KEY) or (), {class_id: index for index, class_id in enumerate(names)})


def _positions(ids: Sequence[object], position: Mapping[int, int]) -> frozenset[int]:
    numbers = (int(str(class_id)) for class_id in ids)
    return frozenset(position[number] for number in numbers if number in position)
