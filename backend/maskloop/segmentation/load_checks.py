"""Why a checkpoint cannot be loaded, as one cause with its own remedy."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskloop.errors import ModelLoadError, first_line
from maskloop.segmentation.hub import read_json

__all__ = ["check_backbone", "check_weight_files", "class_names", "weights_error"]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl")
MAX_NAMED = 3  # files or tensors that an error lists
CONVERT = (
    "load it once with transformers where you trust its author, and save it with "
    "save_pretrained(FOLDER, safe_serialization=True)"
)


def class_names(config: Mapping[str, Any], source: str | Path) -> dict[int, str]:
    """Return id -> label of a `config.json`, in the order of the class head: by id.

    Ids need not start at 0 nor be dense, and are texts in JSON; the i-th smallest is row i of the head.

    Raises:
        ModelLoadError: no ids, ids that are no whole numbers, or two that are the same number.
    """
    found = config.get("id2label")
    if not isinstance(found, Mapping) or not found:
        raise _ids_error(source, "none" if found is None else f"{type(found).__name__} of {found!r}"[:80])
    try:
        names = {int(str(class_id)): str(label) for class_id, label in found.items()}
    except ValueError:
        bad = [class_id for class_id in found if not re.fullmatch(r"-?\d+", str(class_id))]
        raise _ids_error(source, f"the id {bad[0]!r}" if bad else "ids of another kind") from None
    if len(names) != len(found) or min(names) < 0:
        raise _ids_error(source, f"{len(found)} entries for {len(names)} ids, the smallest {min(names)}")
    return dict(sorted(names.items()))


def check_backbone(config: Mapping[str, Any], source: str | Path) -> None:
    """Check that the backbone needs no package that is not installed.

    Raises:
        ModelLoadError: it is one of timm's, and timm is not installed.
    """
    backbone = config.get("backbone_config")
    kind = backbone.get("model_type") if isinstance(backbone, Mapping) else None
    if not (config.get("use_timm_backbone") or kind == "timm_backbone"):
        return
    if importlib.util.find_spec("timm") is None:
        name = config.get("backbone") or (backbone.get("backbone") if isinstance(backbone, Mapping) else None)
        raise ModelLoadError(
            f"model {source}",
            expected="a backbone of transformers itself, such as Swin, ResNet or ConvNeXt",
            got=f"the timm backbone {name!r}, and timm is not installed",
            remedy="take a checkpoint with such a backbone, or install timm and its torchvision",
        )


def check_weight_files(folder: Path, source: str | Path) -> None:
    """Check that the folder has safetensors weights, and that an index names files of this folder alone.

    Raises:
        ModelLoadError: only pickled weights, none at all, or an index whose files are missing or elsewhere.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return
    if (folder / INDEX_FILE).is_file():
        _check_index(folder, source)
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if pickles:
        got, remedy = f"only {_some(pickles)}: pickled weights, which may run code when read", CONVERT
    elif others:
        got = f"{_some(others)} without {WEIGHTS_FILE} or {INDEX_FILE}"
        remedy = f"fetch {INDEX_FILE} as well, or rename a single weights file to {WEIGHTS_FILE}"
    else:
        got = "none"
        remedy = f"fetch {WEIGHTS_FILE}; where the model is published as .bin alone, {CONVERT}"
    raise ModelLoadError(
        f"model {source}",
        expected=f"safetensors weights next to config.json ({WEIGHTS_FILE})",
        got=got,
        remedy=remedy,
    )


def weights_error(
    source: str | Path,
    config: Mapping[str, Any],
    exc: Exception,
    *,
    expected: str = "whole safetensors weights that fit config.json",
) -> ModelLoadError:
    """Return the error for weights that transformers refused, its remedy by the cause.

    Args:
        source: as given to load_checkpoint.
        config: content of `config.json`.
        exc: what transformers, safetensors or torch raised.
        expected: in place of the usual text.
    """
    text = str(exc)
    if "size mismatch" in text or "ignore_mismatched_sizes" in text:
        count = len(config["id2label"]) if isinstance(config.get("id2label"), Mapping) else 2
        remedy = (
            f"its class head must have one row more than the {count} classes of id2label in config.json: "
            "take config.json and weights from the same place"
        )
    elif newer := _newer_version(config):
        remedy = f"it was saved by transformers {newer}: pip install 'transformers>={newer}'"
    elif type(exc).__name__ == "SafetensorError":
        remedy = "the file is damaged or cut off: fetch the weights again"
    else:
        remedy = "fetch the checkpoint again, or save it anew with save_pretrained"
    return ModelLoadError(
        f"model {source}",
        expected=expected,
        got=first_line(exc),
        remedy=remedy,
    )


def _check_index(folder: Path, source: str | Path) -> None:
    names = read_json(folder / INDEX_FILE, source).get("weight_map")
    found = list(names.values()) if isinstance(names, Mapping) else []
    if not found or not all(isinstance(name, str) for name in found):
        raise _index_error(source, "no weight_map of tensor to file", "fetch the index again")
    files = sorted(set(found))
    outside = [name for name in files if Path(name).name != name or "\\" in name or name in ("", ".", "..")]
    if outside:
        raise _index_error(
            source,
            f"{_some(outside)} outside the folder",
            "do not use this checkpoint: its index reads files that are not its own",
        )
    pickled = [name for name in files if not name.endswith(".safetensors")]
    if pickled:
        raise _index_error(source, f"{_some(pickled)}: pickled weights, which may run code", CONVERT)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise _index_error(source, f"{_some(missing)} missing", "fetch the missing files")


def _index_error(source: str | Path, got: str, remedy: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {source}, {INDEX_FILE}",
        expected="names of safetensors files in the same folder",
        got=got,
        remedy=remedy,
    )


def _ids_error(source: str | Path, got: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {source}, id2label in config.json",
        expected='an object of class id to label, such as {"0": "cat", "1": "dog"}, ids being whole numbers',
        got=got,
        remedy="write the classes of the model's head into id2label, in the order of its rows",
    )


def _newer_version(config: Mapping[str, Any]) -> str | None:
    """Return the version of transformers that wrote a config, where it is newer than the one installed."""
    import transformers

    written = str(config.get("transformers_version") or "")
    return written if _numbers(written) > _numbers(transformers.__version__) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("dev")[0])[:3])


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
