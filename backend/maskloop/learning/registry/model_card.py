"""The origin of a version, as a model card in its folder and as metadata of the registry.

Format: https://huggingface.co/docs/hub/model-cards (README.md with YAML front matter).
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maskloop.processes import own_environment
from maskloop.settings import Settings
from maskloop.types import HoldoutMetrics

__all__ = [
    "CARD_FILE",
    "SNAPSHOT_FILE",
    "UNKNOWN",
    "CodeVersion",
    "ModelCard",
    "ModelOrigin",
    "code_version",
    "learning_settings",
    "origin_of_source",
    "origin_of_version",
    "write_card",
]

CARD_FILE = "README.md"
SNAPSHOT_FILE = "snapshot.json"  # which rows of the database a version learnt from and was evaluated on
UNKNOWN = "unknown"
GIT_TIMEOUT_S = 10.0
LEARNING_FIELDS = (
    "annotation_rule",
    "learn_from_boxes",
    "holdout_fraction",
    "holdout_least",
    "early_judging",
    "near_distance",
    "validation_fraction",
    "ignore_labels",
    "learning_rate",
    "backbone_rate",
    "mirror_pairs",
    "class_floors",
    "seed",
)
LEARNING_PREFIXES = ("train_", "augment_", "gate_", "promotion")
NUMBERS = (
    ("pq", "PQ"),
    ("ap50", "AP50"),
    ("ap", "AP"),
    ("ar", "AR"),
    ("miou", "mean IoU"),
    ("boundary_iou", "boundary IoU"),
)
MAX_CLASSES = 200  # in the text; config.json has them all


@dataclass(frozen=True, kw_only=True)
class ModelOrigin:
    """The checkpoint that the first version was made from."""

    base_model: str  # a hub name, or the name of a folder
    licence: str  # from its card; "unknown" where it names none


@dataclass(frozen=True, kw_only=True)
class CodeVersion:
    """A version of maskloop."""

    version: str
    commit: str | None  # of its git repository; None where it was installed as a package

    def __str__(self) -> str:
        return f"{self.version} ({self.commit})" if self.commit else self.version


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts of a version's card."""

    name: str  # the registered model
    origin: ModelOrigin
    labels: tuple[str, ...]
    parent: str | None = None  # tag of the version it was fine-tuned from
    task: str | None = None  # segmentation task of its training
    metrics: HoldoutMetrics | None = None
    decision: str | None = None  # the gate's reason
    showing: str | None = None  # which segments annotators are shown
    train_images: int | None = None
    pool_images: int | None = None  # that nobody has annotated, learnt from by pseudo-labels
    pool_note: str | None = None  # why, or why none though they were asked for
    snapshot: str | None = None  # SHA-256 of the manifest's entries
    dataset: str | None = None  # digest of the snapshot of the data set
    seed: int | None = None
    warnings: tuple[str, ...] = ()  # what the base checkpoint's files lack
    code: CodeVersion

    def as_metadata(self) -> dict[str, str]:
        """Return the registry's metadata of it: strings, without unknown facts, metrics and parent."""
        facts = {
            "base_model": self.origin.base_model,
            "licence": self.origin.licence,
            "code_version": self.code.version,
            "code_commit": self.code.commit,
            "task": self.task,
            "decision": self.decision,
            "showing": self.showing,
            "train_images": self.train_images,
            "pool_images": self.pool_images,
            "pool_note": self.pool_note,
            "snapshot": self.snapshot,
            "dataset": self.dataset,
            "seed": self.seed,
        }
        return {key: str(value) for key, value in facts.items() if value is not None}


def write_card(folder: Path, card: ModelCard) -> None:
    """Write a model card into a checkpoint's folder, in place of an existing one."""
    from huggingface_hub import metadata_save

    path = folder / CARD_FILE
    path.write_text(_text(card), encoding="utf-8")
    metadata_save(path, _front_matter(card, _model_type(folder)))


def origin_of_version(folder: Path, *, fallback: ModelOrigin) -> ModelOrigin:
    """Return the base model and licence of a version's card; the fallback's where the card has none."""
    front_matter = _read_front_matter(folder)
    return ModelOrigin(
        base_model=str(front_matter.get("base_model") or fallback.base_model),
        licence=_licence(front_matter) or fallback.licence,
    )


def origin_of_source(source: str, folder: Path | None) -> ModelOrigin:
    """Return the origin of a checkpoint that is not a registered version.

    Args:
        source: folder or hub name, as in the settings.
        folder: the checkpoint's folder, if it is known.
    """
    is_folder = Path(source).expanduser().is_dir()
    front_matter = _read_front_matter(folder) if folder is not None else {}
    return ModelOrigin(
        base_model=Path(source).expanduser().resolve().name if is_folder else source,
        licence=_licence(front_matter) or UNKNOWN,
    )


def learning_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that a training and its evaluation depend on, as plain values."""
    names = {
        name
        for name in type(settings).model_fields
        if name in LEARNING_FIELDS or name.startswith(LEARNING_PREFIXES)
    }
    values: dict[str, Any] = settings.model_dump(mode="json", include=names)
    # The order of a set differs from process to process.
    return {
        name: sorted(value) if isinstance(getattr(settings, name), frozenset) else value
        for name, value in values.items()
    }


@functools.lru_cache(maxsize=1)
def code_version() -> CodeVersion:
    """Return the running version of maskloop; the commit ends in "+changes" where files differ from it."""
    package = Path(__file__).resolve().parents[2]
    # Installed inside another repository, that repository's commit is not ours.
    commit = _git(package, "rev-parse", "HEAD") if _git(package, "ls-files", "types.py") else None
    if commit and _git(package, "status", "--porcelain", "--untracked-files=no", "."):
        commit += "+changes"
    try:
        version = importlib.metadata.version("maskloop")
    except importlib.metadata.PackageNotFoundError:
        version = UNKNOWN
    return CodeVersion(version=version, commit=commit)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - constant arguments, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git of PATH
            capture_output=True,
            text=True,
            env=own_environment(),
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read_front_matter(folder: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        found = metadata_load(folder / CARD_FILE)
    except Exception:  # a missing or malformed card must not prevent a training
        return {}
    return found or {}


def _licence(front_matter: Mapping[str, Any]) -> str | None:
    licence = front_matter.get("license")
    if licence == "other":  # on the hub: a licence that is not in its list
        licence = front_matter.get("license_name") or licence
    if isinstance(licence, list):
        licence = ", ".join(str(one) for one in licence)
    return str(licence) if licence else None


def _model_type(folder: Path) -> str | None:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    return str(found) if found else None


def _front_matter(card: ModelCard, model_type: str | None) -> dict[str, Any]:
    front_matter: dict[str, Any] = {
        "license": card.origin.licence,
        "base_model": card.origin.base_model,
        "library_name": "transformers",
        "pipeline_tag": "image-segmentation",
        "tags": [tag for tag in ("maskloop", "image-segmentation", model_type, card.task) if tag],
    }
    numbers = _numbers(card.metrics)
    if card.metrics is None or not numbers:
        return front_matter
    results = [{"type": key, "name": name, "value": round(value, 4)} for key, name, value in numbers]
    dataset = {"name": f"holdout of {card.metrics.images} images", "type": "private"}
    index = {
        "name": card.name,
        "results": [{"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": results}],
    }
    return front_matter | {"metrics": [key for key, _, _ in numbers], "model-index": [index]}


def _numbers(metrics: HoldoutMetrics | None) -> list[tuple[str, str, float]]:
    if metrics is None:
        return []
    found = [(key, name, getattr(metrics, key, None)) for key, name in NUMBERS]
    return [(key, name, value) for key, name, value in found if value is not None]


def _text(card: ModelCard) -> str:
    at = datetime.now(UTC)
    base = f"`{card.origin.base_model}` (licence: {card.origin.licence})"
    origin = (
        f"It was fine-tuned from {card.parent}" if card.parent else "It is the model that the settings name"
    )
    parts = [
        f"# {card.name}",
        "",
        f"A segmentation model registered by maskloop {card.code} on {at:%Y-%m-%d}.",
    ]
    parts += [f"{origin}; its base model is {base}.", "", "Load it with `from_pretrained` from this folder."]
    if card.task:
        parts += ["", f"Task: {card.task}."]
    shown = ", ".join(card.labels[:MAX_CLASSES])
    more = len(card.labels) - MAX_CLASSES
    parts += ["", f"Classes ({len(card.labels)}): {shown}" + (f" and {more} more" if more > 0 else "") + "."]
    if card.snapshot:
        parts += [
            "",
            f"Trained on {card.train_images} corrected images with seed {card.seed}. `{SNAPSHOT_FILE}` lists"
            f" the annotation versions of training and holdout (SHA-256 {card.snapshot}).",
        ]
    if card.pool_images:
        parts += [
            "",
            f"It also learnt from {card.pool_images} images that nobody has annotated, by what {card.parent}"
            " was sure of on them." + (f" {_sentence(card.pool_note)}" if card.pool_note else ""),
        ]
    elif card.pool_note:
        parts += ["", f"It learnt from no image that nobody has annotated: {card.pool_note}."]
    if card.dataset:
        parts += ["", f"The data: `maskloop snapshot show {card.dataset}`."]
    if card.metrics is not None:
        parts += ["", f"On the {card.metrics.images} images of the holdout:", ""]
        parts += ["| measure | value |", "|---|---|"]
        parts += [f"| {name} | {value:.3f} |" for _, name, value in _numbers(card.metrics)]
    if card.decision:
        parts += ["", f"Decision of the promotion gate: {card.decision}"]
    if card.showing:
        parts += ["", f"For annotators: {card.showing}"]
    for warning in card.warnings:
        parts += ["", f"Warning: {warning}."]
    if card.origin.licence == UNKNOWN:
        parts += [
            "",
            "The licence of the base model is unknown: its card names none. Clarify it before sharing.",
        ]
    return "\n".join(parts) + "\n"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
