"""What `maskloop doctor` prints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from maskloop.errors import MaskloopError
from maskloop_studio.doctor.findings import Finding, Level, Patient, run_checks
from maskloop_studio.doctor.machine import MACHINE_CHECKS, secrets_of
from maskloop_studio.doctor.order import ORDER_CHECKS
from maskloop_studio.doctor.project import PROJECT_CHECKS

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["examine", "print_findings"]

STYLES = {Level.GOOD: "green", Level.HINT: "yellow", Level.TROUBLE: "bold red", Level.UNKNOWN: "dim"}


def examine(services: Services, project_id: int | None = None) -> list[Finding]:
    """Return what is found of this machine, and of a project where one is named; no secrets in it."""
    patient = Patient(services, project_id)
    checks = MACHINE_CHECKS if project_id is None else (*MACHINE_CHECKS, *PROJECT_CHECKS, *ORDER_CHECKS)
    secrets = secrets_of(patient)
    with contextlib.suppress(MaskloopError):  # without a database there is no secret of ours in it
        secrets.append(services.store.projects.webhook_secret())
    return run_checks(checks, patient, secrets=secrets)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> bool:
    """Print findings and return whether there is no trouble among them."""
    is_well = not any(finding.level is Level.TROUBLE for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"well": is_well, "findings": rows}))
        return is_well
    table = Table("", "what", "found", "expected, and what to do", show_lines=False)
    for finding in findings:
        advice = f"expected {finding.expected}; {finding.remedy}" if finding.expected else ""
        table.add_row(
            f"[{STYLES[finding.level]}]{finding.level.value}[/]",
            *(text.replace("[", r"\[") for text in (finding.place, finding.got, advice)),
        )
    Console().print(table)
    count = sum(finding.level is Level.TROUBLE for finding in findings)
    print("all is well" if is_well else f"{count} {'thing needs' if count == 1 else 'things need'} mending")
    return is_well
