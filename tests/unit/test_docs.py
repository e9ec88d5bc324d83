"""The pages name commands, options, settings, files and links that exist, and every command and setting."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.paths import REPOSITORY
from typer.main import get_command

from maskloop.setting_names import FOREIGN_VARIABLES
from maskloop.settings import Settings
from maskloop_studio.cli.main import app

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "docker" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
SOURCES = [REPOSITORY / "backend", REPOSITORY / "plugin"]
STUDIO_SETTINGS = {"label_studio_url", "label_studio_api_key", "mlflow_tracking_uri"}  # other prefix
MADE_BY_READER = {"docker/.env"}
MAX_PICTURE_BYTES = 300_000

page = pytest.mark.parametrize("page", [pytest.param(path, id=path.stem) for path in PAGES])


def _walk(group, prefix="maskloop"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


ROOT = get_command(app)
COMMANDS = dict(_walk(ROOT))
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS}
OPTIONS = {
    name: {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
    for name, command in COMMANDS.items()
}


def _code(text):
    """Return what stands in backticks, in a line or in a block."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [*(line for block in blocks for line in block.splitlines()), *inline]


def _invocations(text):
    """Return the calls of maskloop as (command, first word, options); comments are left out."""
    for code in _code(text):
        for call in re.findall(r"(?<![\w./:-])maskloop ((?:[a-z][a-z-]*|--version)\b[^#;&|`]*)", code):
            words = call.split()
            name = next(
                (n for n in (f"maskloop {' '.join(words[:2])}", f"maskloop {words[0]}") if n in COMMANDS),
                None,
            )
            yield name, f"maskloop {words[0]}", re.findall(r"(?<!\S)--[a-z][a-z-]*", call)


def _slugs(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def _dead_link(origin, target):
    """Return why a relative link leads nowhere, or None."""
    place, _, anchor = unquote(target).partition("#")
    path = (origin.parent / place).resolve() if place else origin
    if not path.exists():
        return f"{target}: no such file"
    if anchor and anchor not in _slugs(path):
        return f"{target}: no such heading"
    return None


@page
def test_page_names_commands_and_options_that_exist(page):
    wrong = []
    for name, group, options in _invocations(page.read_text()):
        if group == "maskloop --version" or (name is None and group in GROUPS):
            continue
        unknown = sorted(set(options) - OPTIONS.get(name, set()))
        if name is None or unknown:
            wrong.append((name or group, unknown))
    assert wrong == []


@page
def test_page_names_settings_that_exist(page):
    named = set(re.findall(r"\bMASKLOOP_[A-Z0-9_]+\b", page.read_text())) - {"MASKLOOP_"}
    known = {f"MASKLOOP_{field.upper()}" for field in Settings.model_fields}
    other = {name for name in named - known if not FOREIGN_VARIABLES.match(name)}
    compose = (REPOSITORY / "docker" / ".env.example").read_text()
    assert {name for name in other if name not in compose} == set()


@page
def test_page_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text)
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [reason for target in relative if (reason := _dead_link(page, target))] == []


@page
def test_page_names_files_of_the_repository_that_exist(page):
    paths = re.compile(r"^(?:backend|plugin|tests|docs|docker|store)/[\w./-]*[\w-]+$")
    named = [code for code in _code(page.read_text()) if paths.match(code)]
    roots = (REPOSITORY, REPOSITORY / "backend" / "maskloop", REPOSITORY / "plugin" / "maskloop_studio")
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert [name for name in missing if name not in MADE_BY_READER] == []


@page
def test_page_names_make_targets_that_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    named = {target for code in _code(page.read_text()) for target in re.findall(r"^make ([a-z-]+)", code)}
    assert named - targets == set()


@page
def test_page_names_modules_that_exist(page):
    modules = {name for code in _code(page.read_text()) for name in re.findall(r"python -m ([\w.]+)", code)}
    own = {name for name in modules if name.startswith("tests.")}
    assert {n for n in own if not (REPOSITORY / f"{n.replace('.', '/')}.py").exists()} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_options_stand_in_the_commands_page(name):
    page = (REPOSITORY / "docs" / "commands.md").read_text()
    row = next((line for line in page.splitlines() if line.startswith(f"| `{name}")), "")
    assert row, f"{name} has no row in docs/commands.md"
    pairs = [(*option.opts, *option.secondary_opts) for option in COMMANDS[name].params]
    pairs = [pair for pair in pairs if pair[0].startswith("--")]
    assert [pair for pair in pairs if not any(f"`{flag}`" in row for flag in pair)] == []


@pytest.mark.parametrize("field", Settings.model_fields)
def test_setting_stands_in_the_settings_page(field):
    prefix = "" if field in STUDIO_SETTINGS else "MASKLOOP_"
    rows = [
        line
        for line in (REPOSITORY / "docs" / "settings.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert any(f"`{prefix}{field.upper()}`" in row.split(" | ")[0] for row in rows)


def test_readme_length_is_that_of_a_walk():
    assert 110 <= len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


def test_readme_clone_comes_before_every_other_command():
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks[0].startswith("git clone ")


def test_sources_point_at_pages_that_have_the_answer():
    dead = []
    for path in (file for root in SOURCES for file in sorted(root.rglob("*.py"))):
        for target in re.findall(r"\b(docs/[\w.-]+\.(?:md|svg|png)(?:#[\w-]+)?)", path.read_text()):
            reason = _dead_link(REPOSITORY / "README.md", target)
            if reason:
                dead.append((path.name, reason))
    assert dead == []


def test_sources_point_at_no_section_of_the_readme():
    pattern = re.compile(r"see (?:the )?README|README'?s? ?,? \"", flags=re.IGNORECASE)
    files = [file for root in SOURCES for file in root.rglob("*.py")]
    assert [file.name for file in files if pattern.search(file.read_text())] == []


@pytest.mark.parametrize("picture", sorted((REPOSITORY / "docs").glob("*.png")), ids=lambda path: path.name)
def test_picture_is_small_and_used(picture: Path):
    assert picture.stat().st_size < MAX_PICTURE_BYTES
    assert any(picture.name in page.read_text() for page in PAGES)
