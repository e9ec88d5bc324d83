"""What `maskloop doctor` prints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from maskloop.errors import MaskloopError
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import run_checks
from maskloop_studio.doctor.drawing import DRAWING_CHECKS
from maskloop_studio.doctor.findings import Finding, Level
from maskloop_studio.doctor.machine import MACHINE_CHECKS, secrets_of
from maskloop_studio.doctor.order import ORDER_CHECKS
from maskloop_studio.doctor.project import PROJECT_CHECKS

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["examine", "print_findings"]

STYLES = {Level.GOOD: "green", Level.HINT: "yellow", Level.TROUBLE: "bold red", Level.SKIPPED: "dim"}


def examine(services: Services, project_id: int | None = None) -> list[Finding]:
    """Return the findings about this machine, and about a project where one is named; no secrets in them."""
    context = CheckContext(services, project_id)
    of_project = (*PROJECT_CHECKS, *ORDER_CHECKS, *DRAWING_CHECKS)
    checks = MACHINE_CHECKS if project_id is None else (*MACHINE_CHECKS, *of_project)
    secrets = secrets_of(context.settings)
    # Opened before any thread starts: alembic, which MLflow uses as well, keeps its state per process. Where
    # it does not open, the check of the database reports it, and it holds no secret.
    with contextlib.suppress(MaskloopError):
        secrets.append(context.store.projects.webhook_secret())
    return run_checks(checks, context, secrets=secrets)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> bool:
    """Print findings and return whether there is no trouble among them."""
    is_well = not any(finding.level is Level.TROUBLE for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"well": is_well, "findings": rows}))
        return is_well
    table = Table(
        Column("", no_wrap=True),
        Column("what", ratio=1, overflow="fold"),
        Column("found", ratio=2, overflow="fold"),
        expand=True,
    )
    for finding in findings:
        if finding.level is not Level.SKIPPED:
            advice = f"\nexpected {finding.expected}; {finding.remedy}" if finding.expected else ""
            table.add_row(_styled(finding.level), escape(finding.place), escape(finding.got + advice))
    for needed, checks in _skipped(findings).items():
        table.add_row(_styled(Level.SKIPPED), escape(", ".join(checks)), escape(needed))
    Console().print(table)
    count = sum(finding.level is Level.TROUBLE for finding in findings)
    print("all is well" if is_well else f"{count} {'thing does' if count == 1 else 'things do'} not work")
    return is_well


def _styled(level: Level) -> str:
    return f"[{STYLES[level]}]{level.value}[/]"


def _skipped(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Return what is needed -> the names of the checks that were skipped for want of it."""
    checks: defaultdict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.level is Level.SKIPPED and finding.check not in checks[finding.got]:
            checks[finding.got].append(finding.check)
    return dict(checks)
