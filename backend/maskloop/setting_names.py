"""Names of settings: which variables and keys of maskloop.toml are some; what a wrong one may have meant."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from maskloop.errors import ConfigurationError

__all__ = ["FOREIGN_VARIABLES", "PREFIX", "TOML_FILE", "check_names"]

PREFIX = "MASKLOOP_"
TOML_FILE = "maskloop.toml"
# Not settings: what the demo, the tests and the benchmarks read, and what Kubernetes sets for a service.
FOREIGN_VARIABLES = re.compile(
    PREFIX + r"(STUDIO_ENV$|CHROMIUM$|DATABASE_PASSWORD$|TEST_|TORTURE_|BENCH_|DEMO_|SERVICE_|PORT_\d)"
)


def check_names(fields: Mapping[str, FieldInfo]) -> None:
    """Check that every MASKLOOP_* variable and every key of maskloop.toml is a setting.

    Args:
        fields: of the settings, by name.

    Raises:
        ConfigurationError: one is unknown, or maskloop.toml cannot be read.
    """
    variables = {
        name.upper()
        for field, info in fields.items()
        for name in (f"{PREFIX}{field}", *_aliases(info.validation_alias))
    }
    for name in sorted(os.environ):
        is_ours = name.upper().startswith(PREFIX) and not FOREIGN_VARIABLES.match(name.upper())
        if is_ours and name.upper() not in variables:
            raise _unknown_name(f"variable {name}", name.upper(), variables)
    for name in _toml_keys():
        if name not in fields:
            raise _unknown_name(f"{TOML_FILE}, key {name!r}", name, fields)


def _aliases(alias: object) -> list[str]:
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _toml_keys() -> list[str]:
    try:
        return sorted(tomllib.loads(Path(TOML_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            TOML_FILE,
            expected="a readable TOML file",
            got=str(exc),
            remedy="correct it; see docs/settings.md",
        ) from exc


def _unknown_name(place: str, name: str, known: Iterable[str]) -> ConfigurationError:
    bare = {item.removeprefix(PREFIX): item for item in sorted(known)}
    nearest = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
    return ConfigurationError(
        place,
        expected="the name of a setting",
        got="an unknown one",
        remedy=f"did you mean {bare[nearest[0]]}?" if nearest else "remove it; docs/settings.md lists all",
    )
