"""What the address of a page names: found, or an error that says what to do."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Path, Query

from maskloop.errors import MaskloopError
from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW
from maskloop_studio.errors import NotFoundError
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.store.database import Store
    from maskloop.store.overview import ProjectCounts

__all__ = [
    "JobNumber",
    "PageNumber",
    "ProjectNumber",
    "Roles",
    "VersionNumber",
    "find_project",
    "no_such_page",
    "roles_of",
]

ProjectNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**62)]
JobNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**62)]
VersionNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**31)]
PageNumber: TypeAlias = Annotated[int, Query(ge=1, le=10**6)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
    """Which versions of a project have a role; None where none has it."""

    champion: int | None = None
    challenger: int | None = None
    shadow: int | None = None
    trouble: str | None = None  # why it is not known

    def of(self, number: int) -> list[str]:
        """Return the roles of one version."""
        named = {CHAMPION: self.champion, CHALLENGER: self.challenger, SHADOW: self.shadow}
        return [name for name, held in named.items() if held == number]


def no_such_page() -> NotFoundError:
    """Return the error for an address that no page has."""
    return NotFoundError(
        "dashboard",
        expected="the address of a page",
        got="another",
        remedy="start from the list of projects",
    )


def find_project(project_id: int, store: Store) -> ProjectCounts:
    """Return how a connected project stands.

    Raises:
        NotFoundError: it is not connected, or no more.
        StoreError: the database does not answer.
    """
    found = store.overview.projects([project_id])
    if not found:
        raise NotFoundError(
            f"project {project_id}",
            expected="a connected project",
            got="one that is not connected, or no more",
            remedy=f"run `maskloop connect {project_id}` first",
        )
    return found[0]


def roles_of(project_id: int, registry: ModelRegistry) -> Roles:
    """Return the roles of a project's versions; with the reason where the registry does not answer."""
    name = model_name(project_id)
    try:
        held = registry.aliases(name)
        return Roles(champion=held.get(CHAMPION), challenger=held.get(CHALLENGER), shadow=held.get(SHADOW))
    except MaskloopError as exc:
        return Roles(trouble=str(exc))
