"""Runs checks side by side, so that none hides or delays another; one finding for each cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

from maskloop.errors import MaskloopError, StoreError, StudioError
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.findings import Finding, Level, scrubbed, trouble

__all__ = ["Check", "run_checks"]

AT_ONCE = 8
Check: TypeAlias = Callable[[CheckContext], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class _CheckResult:
    """What a check found, and the error that ended it."""

    name: str
    findings: list[Finding]
    error: MaskloopError | None = None


def run_checks(
    checks: Sequence[Check], context: CheckContext, *, secrets: Sequence[str] = ()
) -> list[Finding]:
    """Run all checks side by side and return their findings, in the order of the checks.

    Args:
        checks: functions, named after what they look at.
        context: what they look at.
        secrets: texts that no finding may show.

    Returns:
        The findings. Of the checks that failed for one cause, the first has it as a trouble; the others are
        SKIPPED and name what they need.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check") as pool:
        results = list(pool.map(lambda check: _run(check, context), checks))
    findings: list[Finding] = []
    reported: dict[str, str] = {}  # cause -> the place in whose finding it stands
    for result in results:
        found = list(result.findings)
        if result.error is not None:
            found.append(_error_finding(result.error, reported))
        findings += [scrubbed(replace(finding, check=result.name), secrets) for finding in found]
    return findings


def _run(check: Check, context: CheckContext) -> _CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    findings: list[Finding] = []
    try:
        findings.extend(check(context))
    except MaskloopError as exc:
        return _CheckResult(name=name, findings=findings, error=exc)
    except Exception as exc:  # a fault of ours in one check must not hide the findings of the others
        findings.append(
            trouble(
                f"check {name!r}",
                expected="that it ends without a fault",
                got=f"{type(exc).__name__}: {exc}",
                remedy="please report this",
            )
        )
    return _CheckResult(name=name, findings=findings)


def _error_finding(error: MaskloopError, reported: dict[str, str]) -> Finding:
    cause = _cause(error)
    if cause in reported:
        return Finding(level=Level.SKIPPED, place=error.place, got=f"needs: {reported[cause]}")
    reported[cause] = _needed(error)
    return trouble(error.place, expected=error.expected, got=error.got, remedy=error.remedy)


def _cause(error: MaskloopError) -> str:
    """Return what equal causes have in common: each request names a place of its own."""
    if isinstance(error, StudioError) and error.cause is not None and error.cause.is_shared:
        return f"Label Studio: {error.cause.value}"
    if isinstance(error, StoreError):
        return "database"
    return str(error)


def _needed(error: MaskloopError) -> str:
    if isinstance(error, StudioError) and error.cause is not None and error.cause.is_shared:
        return "Label Studio"
    return "the database" if isinstance(error, StoreError) else error.place
