"""Checkpoints: plain `from_pretrained` folders, loaded, saved and relabelled; families.py knows the models.

Sizes, class kinds and OneFormer's tokenizer are in the same folder as the weights.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskloop.errors import ModelLoadError, first_line
from maskloop.files import publish_folder
from maskloop.log import log_action
from maskloop.segmentation.class_kinds import ClassKinds, stuff_classes
from maskloop.segmentation.click_queries import ClickQueries, load_click_queries, save_click_queries
from maskloop.segmentation.families import (
    EOMT,
    Family,
    family_of,
    fit_preprocessing,
    model_class,
    processor_name,
    regrow_classes,
    settle_model,
)
from maskloop.segmentation.fast.forward import ForwardPlan
from maskloop.segmentation.fast.patching import accelerate_model
from maskloop.segmentation.hub import check_torchvision, find_folder, load_error, read_json
from maskloop.segmentation.load_checks import (
    check_backbone,
    check_weight_files,
    class_names,
    weights_error,
)
from maskloop.segmentation.preprocess import Preprocessing, config_to_preprocessing, preprocessing_to_config
from maskloop.segmentation.processor_config import (
    ADDED_KEY,
    CLASS_INFO_FILE,
    PREPROCESSOR_FILE,
    THINGS_KEY,
    UNDECLARED_KEY,
    read_added_classes,
    read_class_kinds,
    read_processor,
)
from maskloop.segmentation.task_text import TaskText
from maskloop.settings import load_settings
from maskloop.shipped import ANY_OBJECT

__all__ = [
    "Checkpoint",
    "Family",
    "check_torchvision",
    "declare_kinds",
    "load_checkpoint",
    "only_names_object",
    "resolve_device",
    "save_checkpoint",
    "with_labels",
]

WARNINGS_KEY = "maskloop_warnings"  # in config.json
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
logger = logging.getLogger(__name__)
_WARNED: set[tuple[str, str]] = set()  # source and warning, of this process
_LOADING = threading.Lock()  # from_pretrained changes torch.nn.init and the log level of the whole process


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model with all that is needed to use it."""

    model: Any  # as families.model_class gives it, float32, eval mode
    family: Family
    labels: tuple[str, ...]  # class names in the order of their ids
    thing_ids: frozenset[int]  # classes whose objects are counted, those of unknown kind among them
    preprocessing: Preprocessing
    task_text: TaskText | None  # OneFormer's words; None for the others
    source: str  # as given to load_checkpoint
    device: torch.device
    plan: ForwardPlan = field(default_factory=ForwardPlan)  # how it is run where it predicts
    undeclared_ids: frozenset[int] = frozenset()  # classes of which no file says whether they are things
    added_ids: frozenset[int] = frozenset()  # classes that its base did not have: fine-tunings added them
    # what was trained for clicks, on the CPU; None where nothing was
    click_queries: ClickQueries | None = None
    warnings: tuple[str, ...] = ()  # "what its files lack, and which default is used; remedy"

    def stuff_labels(self, kinds: ClassKinds) -> frozenset[str]:
        """Return which of its labels are stuff, as serving, evaluation and training take them."""
        return stuff_classes(self.labels, self.thing_ids, undeclared_ids=self.undeclared_ids, kinds=kinds)


def load_checkpoint(
    source: str | Path, *, device: str = "auto", training: bool = False, plan: ForwardPlan | None = None
) -> Checkpoint:
    """Load a checkpoint from a local folder or from the Hugging Face hub.

    Args:
        source: a folder, or a hub name such as "facebook/mask2former-swin-tiny-coco-instance". A folder is
            read without asking the hub.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" ...
        training: with OneFormer's text encoder, which only its loss needs; where the checkpoint was saved
            without one, it starts from random weights.
        plan: how it is run where it predicts; default: by the process's settings.

    Returns:
        The checkpoint in float32 and eval mode, whatever dtype it was stored in. Weights are only read from
        safetensors files, which cannot run code.

    Raises:
        ModelLoadError: no such folder or name, not one of the families, or damaged files.
        DependencyError: a torchvision that is installed but does not import.
    """
    check_torchvision()
    folder = find_folder(str(source))
    config = read_json(folder / "config.json", source)
    family = family_of(config, source)
    target = resolve_device(device)
    plan = _settings_plan() if plan is None else plan
    names = class_names(config, source)
    check_backbone(config, source)
    check_weight_files(folder, source)
    processor, warning = read_processor(folder, source)
    model = _load_model(family, folder, source, config, training=training)
    try:
        preprocessing = fit_preprocessing(config_to_preprocessing(processor), family, model.config)
        kinds = read_class_kinds(folder, config, processor, names=names)
        added_ids = read_added_classes(config, names=names)
        task_text = _load_task_text(folder, model.config) if family == "oneformer" else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as exc:
        raise load_error(source, "readable files next to the weights", exc) from exc
    labels = tuple(names.values())
    model.config.id2label = dict(enumerate(labels))  # saved, an id is the row of the class head
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    warnings = tuple(str(text) for text in config.get(WARNINGS_KEY) or ())  # of its base
    if warning is not None:
        warnings = (warning,)
    for text in warnings:
        _warn_once(str(source), text)
    if plan.accelerate:
        accelerate_model(model)
    return Checkpoint(
        model=model.to(target).eval(),
        family=family,
        labels=labels,
        thing_ids=kinds.thing_ids,
        preprocessing=preprocessing,
        task_text=task_text,
        source=str(source),
        device=target,
        plan=plan,
        undeclared_ids=kinds.undeclared_ids,
        added_ids=added_ids,
        click_queries=load_click_queries(folder, model),
        warnings=warnings,
    )


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write a checkpoint as a folder that `from_pretrained` and load_checkpoint read.

    The folder appears under its name only when it is complete, also where the process is killed midway;
    a folder that was there before is replaced.

    Args:
        checkpoint: what to write.
        folder: where; its parents are made.
        dtype: of the stored weights; float16 halves the files, and loads as float32 again.

    Returns:
        The folder.
    """
    with publish_folder(Path(folder)) as partial:
        model = copy.copy(checkpoint.model)
        model.config = copy.deepcopy(checkpoint.model.config)
        model.config._name_or_path = ""
        model.config.dtype = dtype
        setattr(model.config, THINGS_KEY, sorted(checkpoint.thing_ids))
        setattr(model.config, UNDECLARED_KEY, sorted(checkpoint.undeclared_ids))
        setattr(model.config, ADDED_KEY, sorted(checkpoint.added_ids))
        setattr(model.config, WARNINGS_KEY, list(checkpoint.warnings))
        state = {name: _to_dtype(tensor, dtype) for name, tensor in checkpoint.model.state_dict().items()}
        with _LOADING, _quiet():
            model.save_pretrained(partial, state_dict=state)
        if checkpoint.click_queries is not None:
            save_click_queries(checkpoint.click_queries, partial, dtype)
        _write_processor(checkpoint, partial)
    return Path(folder)


def declare_kinds(checkpoint: Checkpoint, observed: Mapping[str, bool]) -> Checkpoint:
    """Return the checkpoint with things and stuff settled for labels of undeclared kind.

    Args:
        checkpoint: it is left as it is.
        observed: label -> True where annotators draw one region an image, False where they draw many.
    """
    settled = frozenset(index for index in checkpoint.undeclared_ids if checkpoint.labels[index] in observed)
    stuff = frozenset(index for index in settled if observed[checkpoint.labels[index]])
    return replace(
        checkpoint,
        thing_ids=checkpoint.thing_ids - stuff,
        undeclared_ids=checkpoint.undeclared_ids - settled,
    )


def with_labels(checkpoint: Checkpoint, labels: Sequence[str], *, seed: int) -> Checkpoint:
    """Return a copy of the checkpoint that knows exactly these classes.

    Rows of the class head that belong to a label which stays, and the row of "no object", are copied;
    rows of new labels are drawn afresh, around the old row where there is one only: that of "object" in a
    base that tells objects from their surroundings. New labels are things of undeclared kind, and added. The
    only label of a project gives "object" a name: its row stays as it is, and nothing counts as added.

    Args:
        checkpoint: left as it is; the copy shares no weights with it.
        labels: at least one, no two alike, in the order of their new ids.
        seed: for the rows drawn afresh.

    Raises:
        ValueError: no labels, or two alike.
    """
    names = tuple(labels)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"with_labels: expected at least one label and no two alike, got {names}")
    model = copy.deepcopy(checkpoint.model)
    old_ids = {label: index for index, label in enumerate(checkpoint.labels)}
    kept_ids = [old_ids.get(name) for name in names]
    named = only_names_object(checkpoint, names)
    regrow_classes(model, checkpoint.family, [0] if named else kept_ids, seed)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}

    def with_new(ids: frozenset[int]) -> frozenset[int]:
        return frozenset(new for new, old in enumerate(kept_ids) if old is None or old in ids)

    return replace(
        checkpoint,
        model=model,
        labels=names,
        thing_ids=with_new(checkpoint.thing_ids),
        undeclared_ids=with_new(checkpoint.undeclared_ids),
        added_ids=frozenset() if named else with_new(checkpoint.added_ids),
    )


def only_names_object(checkpoint: Checkpoint, labels: Sequence[str]) -> bool:
    """Return whether these classes do no more than give a name to what a model of objects finds.

    Args:
        checkpoint: the model.
        labels: of the next one.
    """
    of_objects = checkpoint.labels == (ANY_OBJECT,) and not checkpoint.added_ids
    return of_objects and len(labels) == 1


def resolve_device(device: str) -> torch.device:
    """Return the torch device a setting names; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ModelLoadError: no such device on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ValueError) as exc:
        raise ModelLoadError(
            f"device {device!r}",
            expected="a device that torch can use here",
            got=first_line(exc),
            remedy="set MASKLOOP_DEVICE to auto, cpu or a CUDA device of this machine",
        ) from exc


def _settings_plan() -> ForwardPlan:
    settings = load_settings()
    return ForwardPlan(precision=settings.precision, accelerate=settings.accelerate, triton=settings.triton)


def _load_model(
    family: Family, folder: Path, source: str | Path, config: Mapping[str, Any], *, training: bool
) -> Any:
    extra: dict[str, Any] = {"is_training": training} if family == "oneformer" else {}
    try:
        with _LOADING, _quiet():
            model, report = model_class(family).from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **extra,
            )
    except Exception as exc:  # safetensors, torch, huggingface_hub and the config each raise their own
        raise weights_error(source, config, exc) from exc
    settle_model(model, family)
    missing = {name for name in report["missing_keys"] if name in dict(model.named_parameters())}
    missing = {name for name in missing if "text_mapper" not in name}
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        lacking = KeyError(f"{len(missing)} weights missing, {shown} ...")
        raise weights_error(source, config, lacking, expected="weights for the whole model")
    return model


def _warn_once(source: str, warning: str) -> None:
    if (source, warning) not in _WARNED:
        _WARNED.add((source, warning))
        log_action(
            logger, "checkpoint_incomplete", level=logging.WARNING, model_source=source, warning=warning
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and tables of unused weights out of logs and pipes."""
    from transformers.utils import logging as library

    bars, verbosity = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    library.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load_task_text(folder: Path, config: Any) -> TaskText:
    from transformers import CLIPTokenizer

    if not any(
        (folder / name).is_file() for name in TOKENIZER_FILES
    ):  # transformers would make one without words
        raise FileNotFoundError(f"neither {' nor '.join(TOKENIZER_FILES)} of the tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return TaskText(
        tokenizer=tokenizer,
        task_length=config.task_seq_len,
        text_length=config.text_encoder_context_length,
        text_count=config.num_queries - config.text_encoder_n_ctx,
    )


def _write_processor(checkpoint: Checkpoint, folder: Path) -> None:
    processor = preprocessing_to_config(checkpoint.preprocessing)
    processor["image_processor_type"] = processor_name(checkpoint.family)
    if (
        checkpoint.family in EOMT
    ):  # the keys of its own processor; the side of the square is in the model's config
        edge = max(checkpoint.preprocessing.pad_hw or (checkpoint.model.config.image_size,))
        size = {"shortest_edge": edge, "longest_edge": edge}
        processor |= {"size": size, "do_pad": True, "do_split_image": False}
    if checkpoint.task_text is not None:
        processor["num_text"] = checkpoint.task_text.text_count
        checkpoint.task_text.tokenizer.save_pretrained(folder)
        classes = {
            str(index): {"name": label, "isthing": int(index in checkpoint.thing_ids)}
            for index, label in enumerate(checkpoint.labels)
        }
        (folder / CLASS_INFO_FILE).write_text(json.dumps(classes, indent=1), encoding="utf-8")
    (folder / PREPROCESSOR_FILE).write_text(json.dumps(processor, indent=1), encoding="utf-8")


def _to_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    kept = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
    return kept.contiguous()
