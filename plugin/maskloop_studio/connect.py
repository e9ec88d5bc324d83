"""Join a Label Studio project and maskloop: check, register the model, the backend, and begin to predict."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import LabelConfigError
from maskloop.log import log_action
from maskloop_studio.job_specs import queue_or_wait, renewal_job
from maskloop_studio.label_config import map_labels, parse_label_config
from maskloop_studio.training import ensure_champion

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["Connection", "connect_project"]

logger = logging.getLogger(__name__)
BACKEND_TITLE = "maskloop"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What connecting came to."""

    project_id: int
    title: str  # the project's
    model_version: str  # what annotators see predictions of
    matched: tuple[str, ...]  # labels that the model draws already
    unmatched: tuple[str, ...]  # labels it has to learn


def connect_project(
    project_id: int, backend_url: str, services: Services, *, new_labels: bool = False
) -> Connection:
    """Connect a project; doing it again changes nothing but what has to be repaired.

    Args:
        project_id: Label Studio's number.
        backend_url: where Label Studio reaches maskloop's server.
        services: what to work with.
        new_labels: accept a label config none of whose labels the model knows yet.

    Raises:
        LabelConfigError: no image, nothing to draw with, or no label that the model knows.
        StudioError: Label Studio refused.
    """
    client = services.client
    project = client.project(project_id)
    config = parse_label_config(project.label_config)
    champion = ensure_champion(project_id, services)
    try:
        unmatched = map_labels(config, champion.labels).unmatched_labels
    except LabelConfigError:
        if not new_labels:
            raise
        unmatched = config.all_labels
    services.store.projects.save(project_id, project.label_config)
    client.connect_backend(project_id, url=backend_url, title=BACKEND_TITLE)
    # `model_version` follows when the first predictions are there: Label Studio takes none it has not seen.
    client.update_project(project_id, sampling="Uncertainty sampling")
    queue_or_wait(services.queue, renewal_job(project_id))
    log_action(logger, "connected", project_id=project_id, model_version=champion.tag, backend=backend_url)
    return Connection(
        project_id=project_id,
        title=project.title,
        model_version=champion.tag,
        matched=tuple(label for label in config.all_labels if label not in unmatched),
        unmatched=unmatched,
    )
