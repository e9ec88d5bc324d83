"""What the intake works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

from maskloop.store.sessions import now

if TYPE_CHECKING:
    from maskloop.queue.spec import JobQueue
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.store.images import ImageCache
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.services import Services

__all__ = ["IntakeParts"]


@dataclass(frozen=True, kw_only=True)
class IntakeParts:
    """The parts of a process that take in annotations."""

    settings: Settings
    store: Store
    queue: JobQueue
    client: StudioClient
    fetcher: ImageFetcher
    image_cache: ImageCache
    clock: Callable[[], datetime] = now  # aware

    @classmethod
    def of(cls, services: Services) -> Self:
        """Return them from a process's services."""
        return cls(
            settings=services.settings,
            store=services.store,
            queue=services.queue,
            client=services.client,
            fetcher=services.fetcher,
            image_cache=services.image_cache,
        )
