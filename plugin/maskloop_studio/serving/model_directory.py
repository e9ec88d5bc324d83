"""Which model version answers for which project: read from memory, kept in step with the registry.

A new champion is loaded before it answers, so no request waits for a swap and none is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from maskloop.errors import DamagedVersionError, MaskloopError, ModelLoadError
from maskloop.learning.evaluation.showing import read_showing
from maskloop.learning.registry import CHAMPION, SHADOW, rollback_line
from maskloop.log import log_action
from maskloop_studio.errors import ModelLoadingError
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.segmentation.engine import Engine
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.types import ModelVersion

__all__ = ["ModelDirectory", "ServedModel", "ServedState"]

logger = logging.getLogger(__name__)
POLL_S = 2.0
QUIET_S = 30.0  # between two looks at a champion that is damaged


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What answers a project's requests."""

    tag: str  # what Label Studio shows as model_version
    source: str  # the checkpoint's folder or name
    labels: tuple[str, ...]  # its classes


@dataclass(frozen=True, kw_only=True)
class ServedState:
    """How a project's model stands, for people to look at."""

    project_id: int
    tag: str  # what answers
    shadow: str | None  # what predicts beside it
    trouble: str | None  # why something else than the champion answers, or may soon
    showing: str = ""  # which of its segments annotators are shown, in words


@dataclass(frozen=True, kw_only=True)
class _Trouble:
    text: str
    number: int | None  # the champion that cannot be served; None where the registry itself is the trouble
    quiet_until: float  # by the monotonic clock


class ModelDirectory:
    """Project -> served model, refreshed by a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Callable[[], ModelRegistry],
        engine: Callable[[], Engine],
        store: Callable[[], Store],
        on_swap: Callable[[str], None] = lambda _: None,
        after_load: Callable[[], None] | None = None,
    ) -> None:
        """Args:
        settings: which model answers where a project has none of its own.
        registry: the versions; this and the next two are made at their first use, in the thread.
        engine: loads them.
        store: lists the connected projects.
        on_swap: called with the source of a model that answers a project no longer.
        after_load: called in the thread before the model of the settings answers for the first time.
        """
        self._settings, self._registry, self._engine, self._store = settings, registry, engine, store
        self._on_swap = on_swap
        self._after_load = after_load
        self._served: dict[int, ServedModel] = {}
        self._shadows: dict[int, ServedModel] = {}
        self._troubles: dict[int, _Trouble] = {}
        self._wanted: set[int] = set()
        self._looked_at: set[int] = set()  # whose champion was asked for at least once
        self._base: ServedModel | None = None
        self._base_error: MaskloopError | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-directory", daemon=True)

    def start(self) -> None:
        """Begin to follow the registry."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; what is known stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def tag(self, project_id: int | None) -> str:
        """Return the version that answers for a project, at once."""
        served = self._served.get(project_id or 0) or self._base
        return served.tag if served else _base_tag(self._settings.model)

    def tags(self) -> list[str]:
        """Return all versions that answer for a project, or the base model's where none has one."""
        tags = sorted({served.tag for served in self._served.values()}, reverse=True)
        return tags or [self.tag(None)]

    def base_state(self) -> Literal["loading", "ready", "failed"]:
        """Return how the model of the settings stands, at once; why it failed is in the log."""
        if self._base is not None:
            return "ready"
        return "loading" if self._base_error is None else "failed"

    def current(self, project_id: int | None, *, timeout_s: float) -> ServedModel:
        """Return what answers for a project; waits only while the first model, or its first one, is loaded.

        Raises:
            ModelLoadError: the model of the settings cannot be loaded.
            ModelLoadingError: it is not loaded yet.
        """
        if project_id is not None and project_id not in self._served:
            self.follow(project_id)
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready(project_id), timeout_s)
        served = self._served.get(project_id or 0) or self._base
        if served is not None:
            return served
        raise self._base_error or ModelLoadingError(
            "serving",
            expected=f"a model within {timeout_s:.0f} s",
            got="one that is still loading",
            remedy="ask again in a moment; a large model takes minutes on its first start",
        )

    def _is_ready(self, project_id: int | None) -> bool:
        if project_id in self._served or self._base_error is not None:
            return True
        # The model of the settings answers only for those that are known to have no champion.
        return self._base is not None and (project_id is None or project_id in self._looked_at)

    def follow(self, project_id: int) -> None:
        """Look for a champion of this project from now on."""
        with self._changed:
            self._wanted.add(project_id)

    def shadow(self, project_id: int | None) -> ServedModel | None:
        """Return what predicts beside a project's champion without being shown; None where nothing does."""
        return self._shadows.get(project_id or 0)

    def states(self) -> list[ServedState]:
        """Return how each project that has a model of its own stands, or has trouble with it."""
        with self._changed:
            numbers = sorted({*self._served, *self._troubles})
            return [
                ServedState(
                    project_id=number,
                    tag=self.tag(number),
                    shadow=shadow.tag if (shadow := self._shadows.get(number)) else None,
                    trouble=trouble.text if (trouble := self._troubles.get(number)) else None,
                    showing=_in_words(self._served.get(number)),
                )
                for number in numbers
            ]

    def refresh(self) -> None:
        """Look once for new champions, and load them; trouble with one leaves the others alone."""
        with self._changed:
            wanted = sorted(self._wanted | set(self._store().projects.ids()))
        for project_id in wanted:
            try:
                self._refresh(project_id)
            except MaskloopError as exc:
                # The registry may be away for a while; what is served goes on being served.
                self._note_trouble(project_id, exc)
            with self._changed:
                self._looked_at.add(project_id)
                self._changed.notify_all()

    def _refresh(self, project_id: int) -> None:
        registry, name = self._registry(), model_name(project_id)
        trouble = self._troubles.get(project_id)
        quiet = trouble is not None and time.monotonic() < trouble.quiet_until
        if trouble is not None and quiet and registry.alias(name, CHAMPION) == trouble.number:
            return  # a large damaged file is not read every few seconds
        known = self._served.get(project_id)
        try:
            champion = registry.champion(name)
            if champion is not None and (known is None or known.tag != champion.tag):
                self._serve(project_id, champion)
        except (DamagedVersionError, ModelLoadError) as exc:
            self._note_trouble(project_id, exc, number=registry.alias(name, CHAMPION))
            if known is None or known.source not in self._engine().held:
                self._serve_earlier(project_id)
            return
        self._end_trouble(project_id)
        self._follow_shadow(project_id)

    def _serve(self, project_id: int, version: ModelVersion) -> None:
        """Load a version, then let it answer.

        Raises:
            ModelLoadError: it cannot be loaded; what answered goes on.
        """
        known = self._served.get(project_id)
        served = _served_model(version)
        self._engine().load(served.source)
        with self._changed:
            self._served[project_id] = served
            self._changed.notify_all()
        if known is not None:
            self._on_swap(known.source)
        log_action(
            logger,
            "model_swapped",
            project_id=project_id,
            model_version=version.tag,
            before=known.tag if known else "none",
        )

    def _serve_earlier(self, project_id: int) -> None:
        """Serve the last champion before the present one that is whole, so that a restart changes nothing."""
        registry, name = self._registry(), model_name(project_id)
        line = rollback_line(registry.history(name), registry.alias(name, CHAMPION), registry.versions(name))
        for number in reversed(line[:-1]):
            try:
                self._serve(project_id, registry.get(name, number))
            except (DamagedVersionError, ModelLoadError) as exc:
                log_action(
                    logger,
                    "version_not_served",
                    level=logging.WARNING,
                    model_version=f"{name}-v{number}",
                    error=exc,
                )
                continue
            return

    def _follow_shadow(self, project_id: int) -> None:
        registry, name = self._registry(), model_name(project_id)
        number = registry.alias(name, SHADOW) if self._settings.shadow_share > 0 else None
        known = self._shadows.get(project_id)
        if number is None:
            self._shadows.pop(project_id, None)
        elif known is None or known.tag != f"{name}-v{number}":
            self._shadows.pop(project_id, None)
            self._shadows[project_id] = _served_model(registry.get(name, number))

    def _note_trouble(self, project_id: int, error: MaskloopError, *, number: int | None = None) -> None:
        before = self._troubles.get(project_id)
        quiet_until = time.monotonic() + QUIET_S if number is not None else 0.0
        with self._changed:
            self._troubles[project_id] = _Trouble(text=str(error), number=number, quiet_until=quiet_until)
        if before is None or before.text != str(error):
            log_action(
                logger,
                "champion_not_served",
                level=logging.WARNING,
                project_id=project_id,
                serving=self.tag(project_id),
                error=error,
            )

    def _end_trouble(self, project_id: int) -> None:
        with self._changed:
            trouble = self._troubles.pop(project_id, None)
        if trouble is not None:
            log_action(logger, "champion_served_again", project_id=project_id, serving=self.tag(project_id))

    def _load_base(self) -> None:
        source = self._settings.model
        try:
            labels = self._engine().load(source).labels
        except MaskloopError as exc:
            log_action(logger, "model_not_loaded", level=logging.ERROR, source=source, error=exc)
            with self._changed:
                self._base_error = exc
                self._changed.notify_all()
            return
        if self._after_load is not None:
            self._after_load()
        with self._changed:
            self._base = ServedModel(tag=_base_tag(source), source=source, labels=labels)
            self._changed.notify_all()

    def _run(self) -> None:
        is_loaded = False
        while not self._stop.is_set():
            try:
                if not is_loaded:
                    self._load_base()
                    is_loaded = True
                self.refresh()
            except MaskloopError as exc:
                log_action(logger, "projects_not_listed", level=logging.WARNING, error=exc)
            except Exception:
                log_action(logger, "model_directory_failed", level=logging.ERROR, exc_info=True)
            self._stop.wait(POLL_S)


def _served_model(version: ModelVersion) -> ServedModel:
    return ServedModel(tag=version.tag, source=str(version.path), labels=version.labels)


def _in_words(served: ServedModel | None) -> str:
    found = read_showing(served.source) if served is not None else None
    return "" if found is None else found.in_words()


def _base_tag(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]
