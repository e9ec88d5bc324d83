"""What is recorded in the audit trail, by whom, and the answer to "why does this version serve?"."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import MaskloopError
from maskloop.learning.registry import CHAMPION
from maskloop.log import log_action
from maskloop.store.audit import Actor, ActorKind, AuditAction, AuditEntry
from maskloop_studio.projects.training import champion_tag, model_name

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.learning.registry.history import PromotionStep
    from maskloop.store.audit import AuditRecord, AuditRepository
    from maskloop.store.database import Store
    from maskloop.store.jobs import Job

__all__ = [
    "ServingReason",
    "command_line_actor",
    "find_serving_reason",
    "record",
    "record_cleared",
    "record_deletion",
    "record_job",
    "record_moves",
    "record_verdict",
    "training_actor",
]

logger = logging.getLogger(__name__)
UNKNOWN = Actor(kind=ActorKind.UNKNOWN, name="history of the registry")
MOVES = (AuditAction.PROMOTED, AuditAction.ROLLED_BACK, AuditAction.CHAMPION_FOUND)
ACTION_OF_STEP = {"promotion": AuditAction.PROMOTED, "rollback": AuditAction.ROLLED_BACK}


@dataclass(frozen=True, kw_only=True)
class ServingReason:
    """Why a version serves."""

    champion: str | None  # tag; None: no version serves
    record: AuditRecord | None  # that made it the champion; None: none is known
    followed: tuple[AuditRecord, ...]  # refusals and waiting versions since then, newest first


def command_line_actor() -> Actor:
    """Return who runs this command: user@machine, with the user behind sudo."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    name = f"{user} (sudo by {behind})" if behind else user
    return Actor(kind=ActorKind.COMMAND_LINE, name=f"{name}@{socket.gethostname()}")


def training_actor(job: Job) -> Actor:
    """Return who a training's verdict is recorded for: the gate, or the schedule that started it."""
    kind = ActorKind.SCHEDULE if job.action.startswith("schedule") else ActorKind.MASKLOOP
    return Actor(kind=kind, name=job.name)


def record(entry: AuditEntry, store: Store) -> None:
    """Record what has been done already: it cannot be undone.

    Where the database does not answer, the entry is kept in MASKLOOP_HOME and recorded later; it also stands
    in the log, for the case that the disk fails as well.
    """
    try:
        store.audit.append(entry)
    except MaskloopError as exc:
        kept = False
        if store.audit_outbox is not None:
            try:
                store.audit_outbox.keep(entry)
                kept = True
            except OSError as trouble:
                log_action(logger, "audit_not_kept", level=logging.ERROR, error=trouble)
        log_action(
            logger,
            "audit_not_recorded",
            level=logging.ERROR,
            project_id=entry.project_id,
            entry=f"{entry.action}: {entry.subject} {entry.reason}",
            actor=f"{entry.actor.kind} {entry.actor.name}",
            recorded_later=kept,
            error=exc,
        )


def record_cleared(project_id: int, subject: str, *, command: str, tasks: int, store: Store) -> None:
    """Record that whoever runs this command had something removed from Label Studio.

    Args:
        project_id: Label Studio's number.
        subject: what.
        command: as it was called.
        tasks: on how many it was.
        store: gets the record.
    """
    facts = {"tasks": tasks}
    record_deletion(project_id, subject, reason=command, actor=command_line_actor(), store=store, facts=facts)


def record_deletion(
    project_id: int,
    subject: str,
    *,
    reason: str,
    actor: Actor,
    store: Store,
    facts: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> None:
    """Record that something of a project is deleted, here or in Label Studio.

    Args:
        project_id: Label Studio's number.
        subject: what: a version's tag, predictions, a tab.
        reason: why.
        actor: who asked for it.
        store: gets the record.
        facts: plain values, such as how many.
        key: as an AuditEntry has it.
    """
    record(
        AuditEntry(
            project_id=project_id,
            action=AuditAction.DELETED,
            actor=actor,
            subject=subject,
            reason=reason,
            facts=facts or {},
            key=key,
        ),
        store,
    )


def record_job(job: Job, action: AuditAction, actor: Actor, store: Store) -> None:
    """Record what a person did to a job."""
    entry = AuditEntry(
        project_id=job.project_id,
        action=action,
        actor=actor,
        subject=job.name,
        reason=job.action,
        facts={"kind": job.kind.value, "status_before": job.status.value, "error": (job.error or "")[:500]},
    )
    record(entry, store)


def record_moves(
    project_id: int,
    *,
    registry: ModelRegistry,
    audit: AuditRepository,
    actor: Actor = UNKNOWN,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Record the changes of champion that have no record yet; return how many.

    The registry notes each change before it makes it, so none is lost by a kill in between, and the changes
    of a home from before the audit trail are copied by the first call.

    Args:
        project_id: Label Studio's number.
        registry: its history and its champion are read.
        audit: gets the records.
        actor: who made the newest change; older ones without a record are by an unknown actor.
        facts: the figures of the newest change.

    Raises:
        MaskloopError: registry or database does not answer.
    """
    name = model_name(project_id)
    steps, champion, made = registry.history(name), registry.alias(name, CHAMPION), 0
    for index, step in enumerate(steps):
        following = steps[index + 1].before if index + 1 < len(steps) else champion
        if following == step.before and step.number != following:
            continue  # noted by the registry, then killed before the change
        newest = index == len(steps) - 1
        made += audit.append(
            AuditEntry(
                project_id=project_id,
                action=ACTION_OF_STEP[step.kind],
                actor=actor if newest else UNKNOWN,
                subject=f"{name}-v{step.number}",
                reason=step.reason,
                facts={
                    "before": None if step.before is None else f"{name}-v{step.before}",
                    "changed_at": step.at.isoformat(),
                    **(dict(facts or {}) if newest else {}),
                },
                key=_key_of(step),
            )
        )
    last = steps[-1] if steps else None
    if champion is not None and (last is None or champion not in (last.number, last.before)):
        after = "start" if last is None else last.at.isoformat()
        made += audit.append(
            AuditEntry(
                project_id=project_id,
                action=AuditAction.CHAMPION_FOUND,
                actor=Actor(kind=ActorKind.UNKNOWN, name="the registry itself"),
                subject=f"{name}-v{champion}",
                reason="changed in the registry, past maskloop",
                key=f"found-v{champion}-after-{after}",
            )
        )
    return made


def record_verdict(job: Job, outcome: Mapping[str, Any], *, registry: ModelRegistry, store: Store) -> None:
    """Record what the gate decided about a training's version; a training that runs again adds nothing.

    Args:
        job: the training.
        outcome: as `train_project` returns it.
        registry: a promotion is recorded from its history.
        store: gets the records.
    """
    facts = {
        "started_by": job.action,
        **{
            name: outcome.get(name)
            for name in (
                "base",
                "decision",
                "champion_metrics",
                "challenger_metrics",
                "train_images",
                "pool",
                "why_no_pool",
                "pool_check",
                "holdout_images",
            )
        },
    }
    actor = training_actor(job)
    if outcome["release"] == AuditAction.PROMOTED.value:
        try:
            record_moves(job.project_id, registry=registry, audit=store.audit, actor=actor, facts=facts)
        except MaskloopError as exc:  # the next look at the history records it
            log_action(logger, "audit_not_recorded", level=logging.ERROR, training=job.name, error=exc)
        return
    record(
        AuditEntry(
            project_id=job.project_id,
            action=AuditAction(outcome["release"]),
            actor=actor,
            subject=str(outcome["version"]),
            reason=str(outcome["reason"]),
            facts=facts,
            key=f"verdict-{job.name}",
        ),
        store,
    )


def find_serving_reason(project_id: int, *, registry: ModelRegistry, audit: AuditRepository) -> ServingReason:
    """Return the record that made the present champion serve, and the verdicts since.

    Raises:
        MaskloopError: registry or database does not answer.
    """
    champion = champion_tag(project_id, registry)
    followed: list[AuditRecord] = []
    for one in audit.each(project_id):
        if one.entry.action in MOVES:
            found = one if one.entry.subject == champion else None
            return ServingReason(champion=champion, record=found, followed=tuple(followed))
        if one.entry.action in (AuditAction.REFUSED, AuditAction.WAITING, AuditAction.SHADOW):
            followed.append(one)
    return ServingReason(champion=champion, record=None, followed=tuple(followed))


def _key_of(step: PromotionStep) -> str:
    return f"{step.kind}-v{step.number}-{step.at.isoformat()}"
