"""Imports point one way: the plugin imports the engine, never back, and nothing goes round in a circle."""

import graphlib
import inspect
import subprocess
import sys

import grimp
import pytest

import maskloop
import maskloop_studio.formats


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


@pytest.mark.parametrize("package", [maskloop, maskloop_studio.formats], ids=lambda package: package.__name__)
def test_front_door_exports_what_it_lists(package):
    assert sorted(package.__all__) == package.__all__
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_front_door_of_formats_lists_what_is_there():
    names = vars(maskloop_studio.formats).items()
    public = {name for name, value in names if name[0] != "_" and not inspect.ismodule(value)}
    assert public - {"annotations"} == set(maskloop_studio.formats.__all__)


FORMATS = (
    "annotation_to_segments",
    "count_edits",
    "decode_brush",
    "encode_brush",
    "parse_label_config",
    "prediction_to_regions",
)


@pytest.mark.parametrize("name", FORMATS)
def test_front_door_of_formats_keeps_its_names(name):
    assert name in maskloop_studio.formats.__all__


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
