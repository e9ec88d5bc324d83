"""How large modules and signatures may be, and which names of modules may be used twice."""

import ast
from collections import defaultdict
from pathlib import Path

import maskloop
import maskloop_studio

MAX_LINES = 500
MEDIAN_LINES = 200
MAX_POSITIONAL = 5

# A basename that two modules share -> why.
SHARED_NAMES = {
    "__init__.py": "Python's name for a package",
    "errors.py": "the engine's errors, and those that only the plugin raises",
    "command.py": "what a command of the command line runs: demo/ and doctor/",
    "images.py": "where image files are kept (store/), and made-up images (demo/)",
    "annotations.py": "annotations as rows (store/), and an event turned into such rows (intake/)",
    "evaluate.py": "judging a model (learning/), and the command that prints it (cli/)",
    "jobs.py": "job rows (store/), and the command that lists them (cli/)",
    "models.py": "Label Studio's answers (labelstudio/), and the command about versions (cli/)",
    "report.py": "the figures of a project (cli/), and of a demo (demo/)",
    "shapes.py": "tensor shapes of test models (lab/), and region shapes (formats/)",
    "patching.py": "putting our functions in place of transformers': of layers (fast/), of losses (losses/)",
}
# A function with more positional parameters -> who dictates its signature.
DICTATED = {
    "forward": "transformers' module, whose forward it replaces",
    "attend_kernel": "Triton: a kernel takes its pointers and sizes by position",
}


def _sources() -> list[Path]:
    roots = [Path(package.__file__).parent for package in (maskloop, maskloop_studio)]
    return [path for root in roots for path in sorted(root.rglob("*.py"))]


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_modules_share_no_name_without_a_reason():
    places = defaultdict(list)
    for path in _sources():
        places[path.name].append(str(path))
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in SHARED_NAMES} == {}
    assert sorted(SHARED_NAMES.keys() - shared.keys()) == [], "used once now: take it off the list"


def test_modules_are_short():
    lengths = {str(path): len(path.read_text().splitlines()) for path in _sources()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= MEDIAN_LINES


def test_functions_take_few_positional_parameters():
    functions = [(path, function) for path in _sources() for function in _functions(path)]
    long = {
        f"{path}:{function.lineno} {function.name}": _positional(function)
        for path, function in functions
        if _positional(function) > MAX_POSITIONAL and function.name not in DICTATED
    }
    assert long == {}
