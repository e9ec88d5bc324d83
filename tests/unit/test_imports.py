"""Imports point one way: the plugin imports the engine, never back, and nothing goes round in a circle."""

import graphlib
import subprocess
import sys

import grimp
import pytest

import maskloop


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "maskloop", "maskloop_studio", exclude_type_checking_imports=True, cache_dir=None
    )


def test_imports_backend_never_imports_plugin(graph):
    assert graph.find_illegal_dependencies_for_layers(layers=("maskloop_studio", "maskloop")) == set()


def test_imports_inside_backend_follow_the_layers(graph):
    layers = (
        "queue | simulation",
        "learning",
        "segmentation | store | selection | synthetic",
        "processes | resources | settings | masks | log",
        "types",
        "errors",
    )
    levels = [
        grimp.Layer(*(part.strip() for part in layer.split("|")), independent=False) for layer in layers
    ]
    assert graph.find_illegal_dependencies_for_layers(layers=levels, containers={"maskloop"}) == set()


def test_imports_have_no_cycle(graph):
    sorter = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    sorter.prepare()  # raises CycleError, which names the modules


def test_front_door_exports_what_it_lists():
    assert sorted(maskloop.__all__) == maskloop.__all__
    assert [name for name in maskloop.__all__ if not hasattr(maskloop, name)] == []


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
