"""One line of the project's description: which version is shown since when, and whether one is in training.

Label Studio shows it on the project's card and in its settings; nothing there blocks an annotator.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.store.sessions import now

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.projects import ProjectRepository
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["MARK", "Announcer", "described", "withdraw"]

logger = logging.getLogger(__name__)
MARK = "[maskloop] "  # what our line begins with


class Announcer:
    """Keeps our line of a connected project; trouble with it is logged and stops nothing."""

    def __init__(
        self, project_id: int, *, settings: Settings, client: StudioClient, projects: ProjectRepository
    ) -> None:
        self._project_id, self._client = project_id, client
        self._is_on = settings.announce and project_id in projects.ids()

    def training(self, model_version: str) -> None:
        """Say that a training has begun, from a version."""
        self._say(f"{model_version} is shown; a training is running since {_minute(now())}")

    def trained(self, model_version: str, verdict: str) -> None:
        """Say what a training came to.

        Args:
            model_version: the new version.
            verdict: in a few words.
        """
        self._say(f"{model_version} was trained until {_minute(now())}: {verdict}")

    def shown(self, model_version: str, drawing: str | None) -> None:
        """Say that a version's predictions are shown.

        Args:
            model_version: the version.
            drawing: which of its segments are drawn, in words; None: all that reach their threshold.
        """
        start = f"{model_version} is shown since "
        if f"{MARK}{start}" in self._description():
            return  # every prelabelling comes by here: the date is that of the first one
        self._say(f"{start}{_minute(now())}" + (f": it {drawing}" if drawing else ""))

    def _description(self) -> str:
        if not self._is_on:
            return ""
        try:
            return _description(self._project_id, self._client)
        except MaskloopError:
            return ""  # the attempt to write says why

    def _say(self, text: str) -> None:
        if not self._is_on:
            return
        try:
            _write(self._project_id, f"{MARK}{text}", self._client)
        except MaskloopError as exc:
            log_action(logger, "not_announced", level=logging.WARNING, project_id=self._project_id, error=exc)


def withdraw(project_id: int, client: StudioClient) -> bool:
    """Take our line out of a project's description; return whether there was one.

    Raises:
        StudioError: Label Studio refused.
    """
    return _write(project_id, None, client)


def described(description: str, line: str | None) -> str:
    """Return a description with our line as its last one, or without it; everything else stays."""
    lines = [one for one in description.splitlines() if not one.startswith(MARK.strip())]
    others = "\n".join(lines).rstrip()
    if line is None:
        return others
    return f"{others}\n{line}" if others else line


def _write(project_id: int, line: str | None, client: StudioClient) -> bool:
    before = _description(project_id, client)
    if line is None and MARK.strip() not in before:
        return False
    after = described(before, line)
    if after != before:
        client.update_project(project_id, description=after)
    return after != before


def _description(project_id: int, client: StudioClient) -> str:
    return str(client.project(project_id).raw.get("description") or "")


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
