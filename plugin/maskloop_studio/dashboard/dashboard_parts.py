"""What the pages are made of, handed over by the server, and where they are cached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from fastapi import Request

    from maskloop_studio.dashboard.kept_reports import KeptReports
    from maskloop_studio.images.time_limit import TimeLimit
    from maskloop_studio.projects.edit_ledger import EditSummary
    from maskloop_studio.services import Services

__all__ = ["DashboardParts", "PredictInSlot", "RunInThread", "Served"]

Result = TypeVar("Result")


class Served(Protocol):
    """How a project's model stands in this server."""

    @property
    def project_id(self) -> int: ...  # noqa: D102

    @property
    def tag(self) -> str: ...  # noqa: D102

    @property
    def trouble(self) -> str | None: ...  # noqa: D102


class RunInThread(Protocol):
    """Calls a function in a thread, so that the event loop is free meanwhile."""

    def __call__(self, call: Callable[[], Result], /) -> Awaitable[Result]:
        """Return what the call returns."""
        ...


class PredictInSlot(Protocol):
    """Does the work of one request in a thread for predictions; a bounded number works and waits."""

    def __call__(self, request: Request, work: Callable[[TimeLimit], Result], /) -> Awaitable[Result]:
        """Return what the work returns.

        Raises:
            OverloadedError: too many wait already.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DashboardParts:
    """What the pages are made of."""

    services: Services  # database, registry, queue, Label Studio, engine, settings
    served: Callable[[], Sequence[Served]]  # what answers in this process
    queue_lengths: Callable[[], Mapping[str, int]]  # empty where the queue does not answer
    edits: KeptReports[EditSummary]  # what annotators did to predictions, by project
    run: RunInThread
    predict: PredictInSlot
