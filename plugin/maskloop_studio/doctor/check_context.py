"""What checks look at; an answer that several checks need is requested once, also where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from maskloop.errors import MaskloopError

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.labelstudio.models import Json, StudioBackend, StudioProject
    from maskloop_studio.services import Services

__all__ = ["CheckContext"]

Answer = TypeVar("Answer")
ANSWERS = ("project", "backends", "webhooks", "champion")


class CheckContext:
    """The parts of maskloop, and answers of Label Studio; safe to use from several threads."""

    def __init__(self, services: Services, project_id: int | None = None) -> None:
        self._services = services
        self.project_id = project_id
        self._answers: dict[str, object] = {}
        self._locks = {name: threading.Lock() for name in ANSWERS}

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self._services.settings

    @property
    def store(self) -> Store:
        """The database."""
        return self._services.store

    @property
    def registry(self) -> ModelRegistry:
        """The model versions."""
        return self._services.registry

    @property
    def client(self) -> StudioClient:
        """Label Studio's API."""
        return self._services.client

    @property
    def fetcher(self) -> ImageFetcher:
        """The source of images."""
        return self._services.fetcher

    @property
    def number(self) -> int:
        """The project's number."""
        if self.project_id is None:
            raise RuntimeError("CheckContext: a check of a project runs without a project")
        return self.project_id

    @property
    def project(self) -> StudioProject:
        """The project as Label Studio has it."""
        return self._once("project", lambda: self.client.project(self.number))

    @property
    def backends(self) -> list[StudioBackend]:
        """The project's labeling backends; Label Studio calls each before it answers."""
        return self._once("backends", lambda: self.client.backends(self.number))

    @property
    def webhooks(self) -> list[Json]:
        """The project's webhooks."""
        return self._once("webhooks", lambda: self.client.webhooks(self.number))

    @property
    def champion(self) -> str | None:
        """The tag of the version that serves; None where there is none yet."""
        return self._once("champion", self._find_champion)

    def _find_champion(self) -> str | None:
        from maskloop_studio.projects.training import champion_tag

        return champion_tag(self.number, self.registry)

    def _once(self, name: str, request: Callable[[], Answer]) -> Answer:
        with self._locks[name]:
            if name not in self._answers:
                try:
                    self._answers[name] = request()
                except MaskloopError as exc:
                    self._answers[name] = exc
        answer = self._answers[name]
        if isinstance(answer, MaskloopError):
            raise answer
        return answer  # type: ignore[return-value]
