"""pyproject.toml declares what the sources import, and nothing else."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.paths import REPOSITORY

# Extra -> why no source imports its packages.
NOT_IMPORTED = {
    "postgres": "SQLAlchemy loads the driver that a database's address names",
    "label-studio-ml": "runs in an environment of its own",
    "mlflow": "`maskloop mlflow` starts it as a program",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in requirements}


@cache
def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def extras() -> dict[str, set[str]]:
    groups = project()["optional-dependencies"]
    return {name: declared(lines) for name, lines in groups.items() if name != "dev"}


@cache
def imported() -> frozenset[str]:
    """Return the distributions of all modules that the sources import, lazy imports included."""
    modules: set[str] = set()
    for folder in ("backend", "plugin"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            modules |= _modules(path)
    own = {"maskloop", "maskloop_studio"} | set(sys.stdlib_module_names)
    owners = packages_distributions()
    named = declared(project()["dependencies"]).union(*extras().values())
    found: set[str] = set()
    for module in modules - own:
        names = {canonical(name) for name in owners.get(module, [module])}
        # A namespace has several owners: those that are declared are meant, such as opentelemetry's SDK.
        found |= (names & named or names) if len(names) > 1 else names
    return frozenset(found)


def _modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_dependencies_are_all_imported():
    assert declared(project()["dependencies"]) - imported() == set()


def test_extras_are_all_imported():
    unused = {name: packages - imported() for name, packages in extras().items() if name not in NOT_IMPORTED}
    assert {name: packages for name, packages in unused.items() if packages} == {}


def test_imports_are_all_declared():
    known = declared(project()["dependencies"]).union(*extras().values())
    known |= {"triton"}  # comes with torch's wheels for CUDA
    assert imported() - known == set()
