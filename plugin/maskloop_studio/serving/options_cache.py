"""The `extra_params` of connected projects: kept in the database, since workers are other processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop.store.audit import Actor, ActorKind
from maskloop_studio.projects.prediction_plan import ProjectOptions, parse_options

if TYPE_CHECKING:
    from maskloop.store.database import Store

__all__ = ["OptionsCache"]


class OptionsCache:
    """Options by project; only connected projects have any, so that no sender can make us keep more."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._known: dict[int, ProjectOptions] = {}

    def get(self, project_id: int | None) -> ProjectOptions:
        """Return a project's options; the defaults where it is not connected.

        Raises:
            StoreError: the database does not answer.
        """
        if project_id is None:
            return ProjectOptions()
        if project_id not in self._known:
            self._known[project_id] = parse_options(self._store().projects.options(project_id))
        return self._known[project_id]

    def would_change(self, project_id: int, options: ProjectOptions) -> bool:
        """Return whether these options are others than those that are kept."""
        return self.get(project_id) != options

    def set(self, project_id: int, options: ProjectOptions) -> None:
        """Keep the options of a connected project."""
        actor = Actor(kind=ActorKind.STUDIO_USER, name="not named by Label Studio")
        self._store().projects.set_options(project_id, options.as_json(), actor=actor)
        self._known[project_id] = options
