"""Where a checkpoint's files come from: a local folder or the hub, and what is wrong with them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from maskloop.errors import DependencyError, ModelLoadError, first_line

__all__ = ["check_torchvision", "find_config", "find_folder", "load_error", "read_json"]

CONFIG_FILE = "config.json"
HUB_FILES = ("*.json", "*.txt", "*.safetensors", "README.md")  # no pickles; the licence stands in the README


def check_torchvision() -> None:
    """Make sure that a torchvision which is installed also imports; none at all is fine.

    Raises:
        DependencyError: it does not import, as a wheel built for another torch does not. transformers would
            then fail later, with an error that does not name it.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as exc:  # a broken extension raises RuntimeError, OSError, ImportError, ...
        raise DependencyError(
            "torchvision",
            expected="a package that imports, or none: maskloop does not need it",
            got=f"{type(exc).__name__}: {exc}",
            remedy="run `pip uninstall torchvision`, or install the build that belongs to this torch",
        ) from exc


def find_folder(source: str) -> Path:
    """Return the local folder of a source, downloading it where it is a hub name.

    Raises:
        ModelLoadError: no such folder, or the hub does not have it or does not answer.
    """
    return _local_folder(source) or _download(source)


def find_config(source: str) -> Path:
    """Return the `config.json` of a source; of a hub name only this file is downloaded.

    Raises:
        ModelLoadError: no such folder, or the hub does not have it or does not answer.
    """
    folder = _local_folder(source)
    return folder / CONFIG_FILE if folder is not None else _download_config(source)


def _local_folder(source: str) -> Path | None:
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or source.startswith((".", "~")):
        raise ModelLoadError(
            f"model {source}",
            expected="a folder with config.json and safetensors weights",
            got="no such folder",
            remedy="set MASKLOOP_MODEL to a Hugging Face name or a local folder",
        )
    return None


def read_json(path: Path, source: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelLoadError: no such file, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelLoadError(
            f"model {source}", expected=f"a {path.name}", got="none", remedy=_missing_remedy(path)
        ) from exc
    except (OSError, ValueError) as exc:
        raise load_error(source, f"a readable {path.name}", exc) from exc
    if not isinstance(content, dict):
        raise load_error(source, f"an object in {path.name}", TypeError(type(content).__name__))
    return content


def _missing_remedy(path: Path) -> str:
    inside = sorted(found.parent.name for found in path.parent.glob(f"*/{path.name}"))
    if inside:  # as a trainer writes its checkpoints
        return f"set MASKLOOP_MODEL to the folder inside that has one: {', '.join(inside[:3])}"
    return f"fetch {path.name} as well, or set MASKLOOP_MODEL to a folder written by save_pretrained"


def load_error(source: str | Path, expected: str, exc: Exception) -> ModelLoadError:
    """Return the error for a checkpoint that a library failed on."""
    return ModelLoadError(
        f"model {source}",
        expected=expected,
        got=first_line(exc),
        remedy="fetch the checkpoint again, or convert it to safetensors with save_pretrained",
    )


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as exc:  # its own errors, httpx's, the file system's
        raise _hub_error(name, exc) from exc


def _download_config(name: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, CONFIG_FILE) if "/" in name else None
    if isinstance(cached, str):
        return Path(cached)  # also where the hub does not answer
    try:
        return Path(hf_hub_download(name, CONFIG_FILE))
    except Exception as exc:  # as above
        raise _hub_error(name, exc) from exc


def _hub_error(name: str, exc: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"model {name}",
        expected="a folder here or a model on the Hugging Face hub",
        got=first_line(exc),
        remedy=_hub_remedy(name, exc),
    )


def _hub_remedy(name: str, exc: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(exc, errors.GatedRepoError):  # before RepositoryNotFoundError, of which it is a kind
        return f"accept its conditions at https://huggingface.co/{name} and set HF_TOKEN to your token"
    if isinstance(exc, errors.RepositoryNotFoundError):
        return "check the spelling; for a private model set HF_TOKEN to a token that may read it"
    if isinstance(exc, errors.HFValidationError):
        return "give a name of the form owner/model, or set MASKLOOP_MODEL to a local folder"
    return "check the spelling and the network, or set MASKLOOP_MODEL to a local folder"
