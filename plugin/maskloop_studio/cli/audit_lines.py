"""`maskloop audit`: why a version serves, who did what, and whether the records are as they were written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption

if TYPE_CHECKING:
    from maskloop.store.audit import AuditCheck, AuditRecord
    from maskloop_studio.projects.audit_trail import ServingReason

__all__ = ["audit_command"]

MAX_FOLLOWED = 5  # verdicts since the promotion that are printed


def audit_command(
    project: Annotated[
        int, typer.Argument(min=0, help="The project's number; 0: settings of the whole installation.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every record with its hash; exit code 1 at a break.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(help="With --verify: a hash printed earlier, which must still be in the chain."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many records are printed.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Answer why the champion serves, and print who did what: the newest records first.

    Keep the printed head in another place: with it, `--verify --head` also finds records that were cut off.
    """
    from maskloop_studio.projects.audit_trail import find_serving_reason, record_moves
    from maskloop_studio.services import process_services

    if head is not None and not verify:
        raise typer.BadParameter("is compared by --verify only", param_hint="--head")
    services = process_services()
    audit, registry = services.store.audit, services.registry
    check = audit.verify(project, head=head) if verify else None
    reason = None
    if project and (check is None or check.intact):
        record_moves(project, registry=registry, audit=audit)  # what was changed past us, or before us
        reason = find_serving_reason(project, registry=registry, audit=audit)
    records = audit.newest(project, limit=limit)
    if as_json:
        typer.echo(json.dumps(_as_json(reason, records, check)))
    else:
        typer.echo("\n".join(_lines(project, reason, records, check)))
    if check is not None and not check.intact:
        raise typer.Exit(1)


def _as_json(
    reason: ServingReason | None, records: tuple[AuditRecord, ...], check: AuditCheck | None
) -> dict[str, object]:
    found = reason.record if reason else None
    verified = None
    if check is not None:
        verified = {"intact": check.intact, "records": check.records, "trouble": check.trouble}
        verified["head"] = check.head
    return {
        "champion": reason.champion if reason else None,
        "because": found.as_json() if found else None,
        "since_then": [one.as_json() for one in reason.followed] if reason else [],
        "records": [one.as_json() for one in records],
        "verified": verified,
    }


def _lines(
    project: int, reason: ServingReason | None, records: tuple[AuditRecord, ...], check: AuditCheck | None
) -> list[str]:
    from maskloop.log import escape_controls

    lines = [] if reason is None else _why(project, reason)
    lines += [_line(one) for one in records] or ["nothing is recorded yet"]
    if records:
        lines.append(f"head: record {records[0].number}, {records[0].digest}")
    if check is not None:
        lines.append(
            f"verified: {check.records} records are as they were written"
            if check.intact
            else f"NOT INTACT after {check.records} good records: {check.trouble}"
        )
    return [escape_controls(line) for line in lines]


def _why(project: int, reason: ServingReason) -> list[str]:
    if reason.champion is None:
        return [f"project {project}: no version serves"]
    if reason.record is None:
        return [f"project {project}: {reason.champion} serves; no record says why"]
    entry, figures = reason.record.entry, _figures(reason.record)
    lines = [f"project {project}: {reason.champion} serves because {_said(reason.record)}"]
    lines += [f"  on {entry.facts['holdout_images']} holdout images: {figures}"] if figures else []
    lines += [f"  since then: {_said(one)}" for one in reason.followed[:MAX_FOLLOWED]]
    return [*lines, ""]


def _figures(one: AuditRecord) -> str:
    before, after = (one.entry.facts.get(f"{side}_metrics") for side in ("champion", "challenger"))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return ""
    shared = [(name, before.get(name), after.get(name)) for name in ("ap50", "pq", "miou")]
    return ", ".join(
        f"{name} {first:.3f} -> {second:.3f}"
        for name, first, second in shared
        if isinstance(first, float | int) and isinstance(second, float | int)
    )


def _said(one: AuditRecord) -> str:
    entry = one.entry
    who = f"{entry.actor.kind.value.replace('_', ' ')} {entry.actor.name}".strip()
    at = str(entry.facts.get("changed_at") or one.at.isoformat())[:16].replace("T", " ")
    what = (
        f"{entry.subject} was {entry.action.value.replace('_', ' ')}" if entry.subject else entry.action.value
    )
    return f"{what} by {who} at {at} UTC" + (f": {entry.reason}" if entry.reason else "")


def _line(one: AuditRecord) -> str:
    return f"{one.number:>4}  {_said(one)}"
