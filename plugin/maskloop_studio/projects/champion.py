"""Changes of a project's champion: promotion, rollback, displayed predictions, pruning of versions."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.learning.registry import CHAMPION
from maskloop.log import log_action
from maskloop.store.audit import MASKLOOP, Actor
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop_studio.dispatch import request
from maskloop_studio.projects.audit_trail import record_deletion, record_moves
from maskloop_studio.projects.training import champion_tag, model_name

if TYPE_CHECKING:
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = [
    "ChampionMove",
    "follow_champion",
    "promote_version",
    "prune_after_training",
    "prune_versions",
    "roll_back",
    "show_stored",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChampionMove:
    """The result of a promotion or rollback."""

    project_id: int
    before: str | None  # tag of the previous champion; None where there was none
    after: str  # tag of the new champion
    shown: bool  # whether Label Studio displays stored predictions of it already
    stored: int  # predictions of it that Label Studio has; the prelabelling job adds the others
    trouble: str | None = None  # why Label Studio does not display them yet

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return dataclasses.asdict(self)


def promote_version(
    project_id: int, number: int, services: Services, *, reason: str = "", actor: Actor = MASKLOOP
) -> ChampionMove:
    """Make a version the champion; servers load it within seconds, and displayed predictions follow.

    Raises:
        RegistryError: no such version, or its folder is damaged; nothing is changed.
    """
    name, registry = model_name(project_id), services.registry
    before = champion_tag(project_id, services.registry)
    registry.promote(name, number, reason=reason)
    _record_move(project_id, services, actor)
    _note_move(project_id, before, services, actor)
    return _follow(project_id, before, registry.get(name, number), services, "promoted by hand")


def roll_back(
    project_id: int, services: Services, *, reason: str = "", actor: Actor = MASKLOOP
) -> ChampionMove:
    """Make the champion's predecessor champion again; servers and displayed predictions follow.

    Raises:
        RegistryError: there is no predecessor, or its folder is damaged; nothing is changed.
    """
    name = model_name(project_id)
    before = champion_tag(project_id, services.registry)
    version = services.registry.rollback(name, reason=reason)
    _record_move(project_id, services, actor)
    _note_move(project_id, before, services, actor)
    return _follow(project_id, before, version, services, "rolled back")


def follow_champion(project_id: int, services: Services) -> bool:
    """Request a prelabelling where the champion was changed in MLflow itself; return whether it did.

    Raises:
        RegistryError: the registry does not answer.
    """
    number = services.registry.alias(model_name(project_id), CHAMPION)
    record_moves(project_id, registry=services.registry, audit=services.store.audit)
    found = services.store.jobs.find(kind=JobKind.PRELABEL, project_id=project_id, limit=2)
    # One that waits for its time tries failed tasks again: a new champion does not wait for that.
    last = [job for job in found if job.status is not JobStatus.WAITING or job.due_at <= now()][-1:]
    if number is None or (last and last[0].status is not JobStatus.DONE):
        return False  # one waits or runs, or it was cancelled or failed
    tag = f"{model_name(project_id)}-v{number}"
    if last and (last[0].outcome or {}).get("model_version") == tag:
        return False
    reason = f"{tag} is the champion"
    request(JobKind.PRELABEL, project_id, reason, store=services.store, queue=services.queue)
    return True


def show_stored(project_id: int, version: ModelVersion, services: Services) -> bool:
    """Make Label Studio display its stored predictions of a version; return whether it does.

    Raises:
        StudioError: Label Studio does not answer, or has no prediction of that version.
        ConfigurationError: Label Studio's address or token is not set.
    """
    if not services.store.pushes.has_any(project_id, version.tag):
        return False  # Label Studio refuses a version without predictions
    client = services.client
    if client.project(project_id).model_version != version.tag:
        client.update_project(project_id, model_version=version.tag)
    return True


def prune_versions(
    project_id: int, services: Services, *, keep: int | None = None, actor: Actor = MASKLOOP
) -> tuple[str, ...]:
    """Delete a project's old versions and return their tags, oldest first.

    Always kept: the champion, its parent, the targets of the next rollbacks, versions that wait to be
    promoted, and the version whose predictions Label Studio displays.

    Args:
        project_id: Label Studio's number.
        services: registry, Label Studio's client and settings.
        keep: number of the newest versions to keep; by default that of the settings.
        actor: who deletes them, for the audit trail.

    Raises:
        StudioError: Label Studio does not answer which version it displays; nothing is deleted.
        RegistryError: the registry refuses.
    """
    from maskloop.learning.registry.promotion import prune

    project = services.client.find_project(project_id)
    kept = services.settings.keep_versions if keep is None else keep

    def note(tag: str) -> None:  # before it is deleted: a kill in between loses no record
        record_deletion(
            project_id,
            tag,
            reason=f"older than the newest {kept} versions, and not needed for a rollback",
            actor=actor,
            store=services.store,
            key=f"deleted-{tag}",
        )

    gone = prune(
        model_name(project_id),
        services.registry,
        keep=kept,
        shown=(project.model_version,) if project is not None else (),
        before_each=note,
    )
    if gone:
        log_action(logger, "versions_pruned", project_id=project_id, versions=", ".join(gone))
    return gone


def prune_after_training(project_id: int, services: Services) -> None:
    """Delete old versions; where that fails, log the error: the next training tries again."""
    try:
        prune_versions(project_id, services)
    except MaskloopError as exc:
        log_action(logger, "versions_not_pruned", level=logging.WARNING, project_id=project_id, error=exc)


def _record_move(project_id: int, services: Services, actor: Actor) -> None:
    try:
        record_moves(project_id, registry=services.registry, audit=services.store.audit, actor=actor)
    except MaskloopError as exc:  # it is made: the next look at the history records it
        log_action(logger, "audit_not_recorded", level=logging.ERROR, project_id=project_id, error=exc)


def _note_move(project_id: int, before: str | None, services: Services, actor: Actor) -> None:
    """Put a notice about the newest change of champion; trouble with it is logged and stops nothing."""
    if services.settings.notify_url is None:
        return
    name = model_name(project_id)
    try:
        step = services.registry.history(name)[-1]
        kind = "rolled_back" if step.kind == "rollback" else "promoted"
        by = f"{actor.kind.value.replace('_', ' ')} {actor.name}".strip()
        after = f"{name}-v{step.number}"
        reason = f": {step.reason}" if step.reason else ""
        services.store.notices.put(
            kind,
            f"project {project_id}: {after} {kind.replace('_', ' ')} by {by}{reason}",
            key=f"{kind}-{after}-{step.at.isoformat()}",
            project_id=project_id,
            facts={"version": after, "before": before, "reason": step.reason, "by": by},
        )
    except (MaskloopError, IndexError) as exc:
        log_action(logger, "move_not_noted", level=logging.WARNING, project_id=project_id, error=exc)


def _follow(
    project_id: int, before: str | None, version: ModelVersion, services: Services, reason: str
) -> ChampionMove:
    log_action(
        logger,
        "champion_moved",
        project_id=project_id,
        before=before,
        model_version=version.tag,
        reason=reason,
    )
    # Before the call of Label Studio: if this process is killed, the job does the rest.
    request(
        JobKind.PRELABEL,
        project_id,
        f"{version.tag} was {reason}",
        store=services.store,
        queue=services.queue,
    )
    shown, trouble = False, None
    try:
        shown = show_stored(project_id, version, services)
    except MaskloopError as exc:
        trouble = str(exc)
        log_action(
            logger, "predictions_not_switched", level=logging.WARNING, project_id=project_id, error=exc
        )
    return ChampionMove(
        project_id=project_id,
        before=before,
        after=version.tag,
        shown=shown,
        stored=sum(
            number is not None for number in services.store.pushes.of(project_id, version.tag).values()
        ),
        trouble=trouble,
    )
