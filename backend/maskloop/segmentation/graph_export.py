"""Exports a model version for OpenVINO: once, by a child process, into a folder of its own in the home.

A version's own folder may be read-only or belong to a registry, so the graph lies beside none of them but
under a name made from all that it depends on. It is XML and plain numbers: reading it runs no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias
from weakref import ref

import torch
from filelock import FileLock
from torch import Tensor

from maskloop.errors import DependencyError, ModelLoadError, first_line
from maskloop.files import publish_folder
from maskloop.log import log_action
from maskloop.processes import own_environment
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.fast import model_forward, query_decoder, symbolic
from maskloop.segmentation.fast.forward import ForwardPlan, can_symbolize
from maskloop.segmentation.fast.graphs import STRIDE, offer_graph
from maskloop.segmentation.fast.symbolic import SymbolicForward
from maskloop.segmentation.hub import find_folder

__all__ = [
    "GraphExports",
    "GraphMode",
    "export_graph",
    "find_graph",
    "graph_key",
    "installed_openvino",
    "openvino_graph",
]

GraphMode: TypeAlias = Literal["auto", "on", "off"]
GRAPH_FILES = ("graph.xml", "graph.bin")
DIGESTS_FILE = "digests.json"
KEPT = 6  # graphs, of the models that were used last; each is as large as the model
LONGEST_S = 900.0  # of an export
CHUNK = 1 << 20
EXAMPLE_HW = (96, 128)  # what is traced; the sides stay open

logger = logging.getLogger(__name__)


class GraphExports:
    """Gives models their graph, in threads of its own; a model answers without one until then."""

    def __init__(self, root: Path, *, mode: GraphMode) -> None:
        """Args:
        root: the folder of all graphs.
        mode: "auto" for where OpenVINO is installed, and only as far as it is faster; "on" for all that
            it gives equal outputs for; "off" for nothing.

        Raises:
            DependencyError: "on", and OpenVINO is not installed.
        """
        self._root, self._forced = root, mode == "on"
        self._used = mode != "off" and installed_openvino() is not None
        if mode == "on" and not self._used:
            raise DependencyError(
                "MASKLOOP_OPENVINO=on",
                expected="the package openvino",
                got="none",
                remedy="pip install 'maskloop[openvino]', or set MASKLOOP_OPENVINO to auto",
            )
        self._one_export = threading.Lock()
        self._threads: list[threading.Thread] = []

    def prepare(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint as it is to be served; its graph is found or made in the background."""
        model = checkpoint.model
        if not (self._used and checkpoint.device.type == "cpu" and can_symbolize(model, checkpoint.plan)):
            return checkpoint
        thread = threading.Thread(
            target=self._offer, args=(ref(model), checkpoint.source), name="maskloop-export", daemon=True
        )
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()
        return replace(checkpoint, plan=replace(checkpoint.plan, openvino=True))

    def wait(self) -> None:
        """Return once no graph is being looked for or made."""
        for thread in self._threads:
            thread.join()

    def _offer(self, model: ref[Any], source: str) -> None:
        try:
            with self._one_export:
                path = find_graph(self._root, source, _export_in_child)
        except Exception as exc:  # whatever it is, the model answers by torch
            log_action(
                logger,
                "graph_not_made",
                level=logging.WARNING,
                model_source=source,
                engine="torch",
                error=first_line(exc),
            )
            return
        held = model()
        if held is not None:
            offer_graph(held, path, forced=self._forced)


def installed_openvino() -> str | None:
    """Return the version of OpenVINO's package; None where it is not installed. Nothing is imported."""
    if importlib.util.find_spec("openvino") is None:
        return None
    try:
        return version("openvino")
    except PackageNotFoundError:  # built from source, say: what it is cannot be told
        return None


def find_graph(root: Path, source: str, export: Callable[[str, Path], None]) -> Path:
    """Return the XML file of a model's graph, exporting it where it is not there or damaged.

    Args:
        root: the folder of all graphs.
        source: as for load_checkpoint.
        export: writes the graph of a source as a folder.

    Raises:
        ModelLoadError: the model's files cannot be read, or what was exported is damaged.
    """
    folder = root / graph_key(source)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock", timeout=LONGEST_S):
        damage = _damage(folder)
        if damage is not None and folder.exists():
            log_action(logger, "graph_damaged", level=logging.WARNING, file=damage, remedy="it is made again")
            shutil.rmtree(folder)
        if damage is not None:
            start = time.perf_counter()
            export(source, folder)
            if (damage := _damage(folder)) is not None:
                raise ModelLoadError(
                    f"graph of {source}",
                    expected=f"a whole {GRAPH_FILES[0]} and {GRAPH_FILES[1]}",
                    got=f"a damaged {damage} right after it was written",
                    remedy="look for errors of the disk; set MASKLOOP_OPENVINO=off meanwhile",
                )
            took_s = round(time.perf_counter() - start, 1)
            log_action(logger, "graph_exported", model_source=source, duration_s=took_s)
        os.utime(folder)
        _drop_old(root)
    return folder / GRAPH_FILES[0]


def graph_key(source: str) -> str:
    """Return 32 hex digits for what a graph depends on: weights, configuration, OpenVINO, torch and our code.

    Raises:
        ModelLoadError: no such model.
    """
    digest = hashlib.sha256()
    for name in ("openvino", "torch", "transformers"):
        digest.update(f"{name} {version(name)}\n".encode())
    for module in (symbolic, query_decoder, model_forward):
        digest.update(Path(str(module.__file__)).read_bytes())
    folder = find_folder(source)
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{path.name} {_file_digest(path)}\n".encode())
    return digest.hexdigest()[:32]


def export_graph(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the graph of a model as a folder that appears under its name when it is whole.

    Args:
        checkpoint: on the CPU, of a family that can_symbolize knows.
        folder: where; one that was there is replaced.
    """
    import openvino

    assert all(side % STRIDE == 0 for side in EXAMPLE_HW)
    example = [torch.zeros(1, 3, *EXAMPLE_HW)]
    if checkpoint.task_text is not None:
        example.append(torch.zeros(1, checkpoint.task_text.task_length, dtype=torch.int64))
    is_swin = can_symbolize(checkpoint.model, checkpoint.plan) == "swin"
    graph = openvino_graph(SymbolicForward(checkpoint.model, swin=is_swin), example)
    with publish_folder(folder) as partial:
        openvino.save_model(graph, partial / GRAPH_FILES[0], compress_to_fp16=False)
        digests = {name: _file_digest(partial / name) for name in GRAPH_FILES}
        (partial / DIGESTS_FILE).write_text(json.dumps(digests), encoding="utf-8")


def openvino_graph(module: torch.nn.Module, example: Sequence[Tensor]) -> Any:
    """Return an openvino.Model of a module, as it computes an example.

    Not by openvino.convert_model, which reports its use to its makers.

    Args:
        module: whose outputs are tensors.
        example: its inputs.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about sizes that it takes for constants
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module.eval(), tuple(example), check_trace=False
        )
        front = FrontEndManager().load_by_framework("pytorch")
        # a name of its own: what is loaded refers to it from outside Python
        decoder = TorchScriptPythonDecoder(traced, example_input=tuple(example))
        loaded = front.load(decoder)
        return front.convert(loaded)


def _damage(folder: Path) -> str | None:
    """Return the file that is missing or not as it was written, None where all are."""
    try:
        digests = json.loads((folder / DIGESTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return str(folder / DIGESTS_FILE)
    for name in GRAPH_FILES:
        try:
            whole = isinstance(digests, dict) and digests.get(name) == _file_digest(folder / name)
        except OSError:
            whole = False
        if not whole:
            return str(folder / name)
    return None


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _drop_old(root: Path) -> None:
    """Keep the graphs that were used last; what a killed export left goes after a day."""
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
    for path in root.glob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)


def _export_in_child(source: str, folder: Path) -> None:
    """Export in a process of its own: tracing holds Python's lock and takes memory of the model's size."""
    done = subprocess.run(  # noqa: S603 - a fixed program
        [sys.executable, "-m", __name__, str(os.getpid()), source, str(folder)],
        stdin=subprocess.DEVNULL,
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelLoadError(
            f"graph of {source}",
            expected="an export by OpenVINO",
            got=f"status {done.returncode}: {last[:300]}",
            remedy="set MASKLOOP_OPENVINO=off to do without, or install the tested version of openvino",
        )


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _main(parent: str, source: str, folder: str) -> None:
    os.nice(10)  # the server answers meanwhile
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    checkpoint = load_checkpoint(source, device="cpu", plan=ForwardPlan(precision="float32"))
    export_graph(checkpoint, Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
