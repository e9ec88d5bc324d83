"""Imports point one way, folder by folder; no folders import each other in a ring.

A folder stands for the modules that lie directly in it, a subfolder counts by itself, and a module in a
package's root stands for itself.
"""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import maskloop
import maskloop_studio
from maskloop_studio import formats

# From the top: a folder imports, at module level, only from the lines below its own.
LAYERS = [
    # plugin
    "maskloop_studio.__main__",
    "maskloop_studio.cli",
    "maskloop_studio.demo | maskloop_studio.doctor | maskloop_studio.ml_backend",
    "maskloop_studio.prelabel | maskloop_studio.exchange | maskloop_studio.review",
    "maskloop_studio.serving",
    "maskloop_studio.dashboard",
    "maskloop_studio.serving.http",
    "maskloop_studio.runtime",
    "maskloop_studio.intake",
    "maskloop_studio.projects",
    "maskloop_studio.dispatch",
    "maskloop_studio.services",
    "maskloop_studio.images",
    "maskloop_studio.labelstudio | maskloop_studio.formats",
    "maskloop_studio.formats.rle",
    "maskloop_studio.errors",
    "maskloop_studio",
    # engine
    "maskloop.testing | maskloop.lab.simulation",
    "maskloop.lab",
    "maskloop.curation.exports | maskloop.curation.imports | maskloop.curation.review",
    "maskloop.curation.agreement | maskloop.curation.duplicates",
    "maskloop.curation.snapshots",
    "maskloop.curation",
    "maskloop.learning",
    "maskloop.learning.training",
    "maskloop.learning.data",
    "maskloop.learning.registry | maskloop.learning.losses",
    "maskloop.learning.evaluation",
    "maskloop.interactive",
    "maskloop.segmentation",
    "maskloop.segmentation.fast",
    "maskloop.queue",
    "maskloop.store",
    "maskloop.store.migrations",
    "maskloop.store.migrations.versions",
    "maskloop.lab.photos",
    "maskloop.selection | maskloop.lab.synthetic | maskloop.drift",
    "maskloop.polygons",
    "maskloop.mask_runs | maskloop.masks | maskloop.settings | maskloop.home | maskloop.similarity",
    "maskloop.types | maskloop.processes | maskloop.tracing | maskloop.setting_names | maskloop.shipped",
    "maskloop",
    "maskloop.cores | maskloop.files | maskloop.label_pairs | maskloop.log | maskloop.malloc",
    "maskloop.memory_budget | maskloop.prefetch | maskloop.hit_counter",
    "maskloop.errors",
]
LEVELS = {name.strip(): level for level, line in enumerate(LAYERS) for name in line.split("|")}


def _modules() -> dict[str, Path]:
    found = {}
    for package in (maskloop, maskloop_studio):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _folder(module: str) -> str:
    is_folder = MODULES[module].name == "__init__.py" or module.count(".") == 1
    return module if is_folder else module.rpartition(".")[0]


def _is_lazy(node: ast.AST) -> bool:
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_function or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))


def _statements(node: ast.AST, *, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif lazy or not _is_lazy(child):
            yield from _statements(child, lazy=lazy)


def _imported(module: str, *, lazy: bool) -> set[str]:
    """Return the modules of both packages that a module imports: when it is loaded, or at any time."""
    names: set[str] = set()
    for node in _statements(ast.parse(MODULES[module].read_text()), lazy=lazy):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert not node.level, f"{module}:{node.lineno} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return (names & MODULES.keys()) - {module}


@functools.cache
def _loaded() -> dict[str, set[str]]:
    return {module: _imported(module, lazy=False) for module in MODULES}


@functools.cache
def _all_imported() -> dict[str, set[str]]:
    return {module: _imported(module, lazy=True) for module in MODULES}


def _folders(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {_folder(module): set() for module in imports}
    for module, others in imports.items():
        graph[_folder(module)] |= {_folder(other) for other in others} - {_folder(module)}
    return graph


def test_layers_name_every_folder():
    folders = {_folder(module) for module, path in MODULES.items() if ast.parse(path.read_text()).body}
    assert sorted(folders - LEVELS.keys()) == [], "give each new folder its place in LAYERS"


def test_module_level_imports_follow_the_layers():
    wrong = [
        f"{module} imports {other}"
        for module, others in _loaded().items()
        for other in others
        if _folder(other) != _folder(module) and LEVELS[_folder(other)] <= LEVELS[_folder(module)]
    ]
    assert wrong == []


def test_engine_never_imports_the_plugin():
    engine = {name for name in MODULES if name.split(".")[0] == "maskloop"}
    assert [name for name in engine if not _all_imported()[name] <= engine] == []


GRAPHS = [
    pytest.param(_loaded, id="modules as they are loaded"),
    pytest.param(lambda: _folders(_loaded()), id="folders as they are loaded"),
    pytest.param(lambda: _folders(_all_imported()), id="folders with lazy and type-checking imports"),
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_imports_have_no_ring(graph):
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which names the ring


def test_ring_of_folders_is_found():
    with pytest.raises(graphlib.CycleError):
        test_imports_have_no_ring(lambda: {"a": {"b"}, "b": {"c"}, "c": {"a"}})


def _reached(module: str) -> set[str]:
    """Return every module that may be loaded after `module`, lazy imports included."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        for other in _all_imported()[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    return reached


def test_worker_reaches_its_jobs_and_never_the_http_server():
    reached = _reached("maskloop_studio.runtime.tasks")
    assert {"maskloop_studio.prelabel.run", "maskloop_studio.projects.training"} <= reached
    assert sorted(name for name in reached if name.startswith("maskloop_studio.serving.http")) == []


@pytest.mark.parametrize("package", [maskloop, formats], ids=lambda package: package.__name__)
def test_front_door_exports_what_it_lists(package):
    assert sorted(package.__all__) == list(package.__all__)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


LIGHT = [
    pytest.param(
        "maskloop_studio.cli.main",
        ("torch", "transformers", "mlflow", "label_studio_sdk", "sklearn"),
        id="command line",
    ),
    pytest.param(
        "maskloop_studio.runtime.tasks",
        ("torch", "transformers", "mlflow", "sklearn"),
        id="workers before the fork",
    ),
    pytest.param(
        "maskloop_studio.intake.annotations", ("torch", "transformers", "mlflow", "sklearn"), id="intake"
    ),
]


@pytest.mark.parametrize(("module", "heavy"), LIGHT)
def test_import_light_module_leaves_heavy_ones_alone(module, heavy):
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
