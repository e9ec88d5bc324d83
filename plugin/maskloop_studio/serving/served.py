"""Which model version answers for which project: read from memory, kept in step with the registry.

A new champion is loaded before it is pointed at, so a swap waits for nobody and drops nothing.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop_studio.training import model_name

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["ModelDirectory", "ServedModel"]

logger = logging.getLogger(__name__)
POLL_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What answers a project's requests."""

    tag: str  # what Label Studio shows as model_version
    source: str  # the checkpoint's folder or name
    labels: tuple[str, ...]  # its classes


class ModelDirectory:
    """Project -> served model, refreshed by a thread of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._served: dict[int, ServedModel] = {}
        self._wanted: set[int] = set()
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
        return served.tag if served else _base_tag(self._services.settings.model)

    def tags(self) -> list[str]:
        """Return all versions that answer for a project, or the base model's where none has one."""
        tags = sorted({served.tag for served in self._served.values()}, reverse=True)
        return tags or [self.tag(None)]

    def current(self, project_id: int | None, *, timeout_s: float) -> ServedModel:
        """Return what answers for a project; waits only while the first model is being loaded.

        Raises:
            ModelLoadError: the model of the settings cannot be loaded.
            MaskloopError: it is not loaded yet.
        """
        if project_id is not None and project_id not in self._served:
            self.follow(project_id)
        with self._changed:
            self._changed.wait_for(
                lambda: self._served.get(project_id or 0) or self._base or self._base_error, timeout_s
            )
        served = self._served.get(project_id or 0) or self._base
        if served is not None:
            return served
        raise self._base_error or MaskloopError(
            "serving",
            expected=f"a model within {timeout_s:.0f} s",
            got="one that is still loading",
            remedy="ask again in a moment; a large model takes minutes on its first start",
        )

    def follow(self, project_id: int) -> None:
        """Look for a champion of this project from now on."""
        with self._changed:
            self._wanted.add(project_id)

    def refresh(self) -> None:
        """Look once for new champions, and load them."""
        with self._changed:
            wanted = sorted(self._wanted | set(self._services.store.projects.ids()))
        for project_id in wanted:
            champion = self._services.registry.champion(model_name(project_id))
            known = self._served.get(project_id)
            if champion is None or (known is not None and known.tag == champion.tag):
                continue
            self._services.engine.load(str(champion.path))
            served = ServedModel(tag=champion.tag, source=str(champion.path), labels=champion.labels)
            with self._changed:
                self._served[project_id] = served
                self._changed.notify_all()
            log_action(
                logger,
                "model swapped",
                project_id=project_id,
                model_version=champion.tag,
                before=known.tag if known else "none",
            )

    def _load_base(self) -> None:
        source = self._services.settings.model
        try:
            labels = self._services.engine.load(source).labels
        except MaskloopError as exc:
            log_action(logger, "model not loaded", level=logging.ERROR, source=source, error=exc)
            with self._changed:
                self._base_error = exc
                self._changed.notify_all()
            return
        with self._changed:
            self._base = ServedModel(tag=_base_tag(source), source=source, labels=labels)
            self._changed.notify_all()

    def _run(self) -> None:
        self._load_base()
        while not self._stop.is_set():
            try:
                self.refresh()
            except MaskloopError as exc:
                # The registry may be away for a while; what is served goes on being served.
                log_action(logger, "registry unreachable", level=logging.WARNING, error=exc)
            except Exception:
                logger.exception("model directory")
            self._stop.wait(POLL_S)


def _base_tag(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]
