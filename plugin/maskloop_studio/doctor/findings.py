"""What a check found, and how checks are run so that none hides another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from maskloop.errors import MaskloopError, StudioError

if TYPE_CHECKING:
    from maskloop_studio.labelstudio.models import Json, StudioBackend, StudioProject
    from maskloop_studio.services import Services

__all__ = ["Check", "Finding", "Level", "Patient", "good", "hint", "run_checks", "trouble"]

Answer = TypeVar("Answer")
STARS = "[secret]"


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    HINT = "hint"  # works, but somebody may want to know
    TROUBLE = "trouble"
    UNKNOWN = "unknown"  # could not be looked at, for a trouble that another finding names


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str = ""  # the check's name
    level: Level
    place: str
    expected: str = ""
    got: str = ""
    remedy: str = ""


class Patient:
    """What is examined; what several checks want to know is asked once, also where that fails."""

    def __init__(self, services: Services, project_id: int | None = None) -> None:
        self.services = services
        self.project_id = project_id
        self._answers: dict[str, object] = {}

    @property
    def number(self) -> int:
        """The project's number."""
        if self.project_id is None:
            raise RuntimeError("Patient: no project is examined")
        return self.project_id

    @property
    def project(self) -> StudioProject:
        """The project as Label Studio has it."""
        return self._once("project", lambda: self.services.client.project(self.number))

    @property
    def backends(self) -> list[StudioBackend]:
        """Its labeling backends; Label Studio calls each before it answers."""
        return self._once("backends", lambda: self.services.client.backends(self.number))

    @property
    def webhooks(self) -> list[Json]:
        """Its webhooks."""
        return self._once("webhooks", lambda: self.services.client.webhooks(self.number))

    @property
    def champion(self) -> str | None:
        """The tag of the version that serves; None where there is none yet."""
        return self._once("champion", self._find_champion)

    def _find_champion(self) -> str | None:
        from maskloop.learning.registry import CHAMPION
        from maskloop_studio.projects.training import model_name

        name = model_name(self.number)
        found = self.services.registry.alias(name, CHAMPION)
        return None if found is None else f"{name}-v{found}"

    def _once(self, name: str, ask: Callable[[], Answer]) -> Answer:
        if name not in self._answers:
            try:
                self._answers[name] = ask()
            except MaskloopError as exc:
                self._answers[name] = exc
        answer = self._answers[name]
        if isinstance(answer, MaskloopError):
            raise answer
        return answer  # type: ignore[return-value]


Check: TypeAlias = Callable[[Patient], Iterable[Finding]]


def good(place: str, got: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(level=Level.GOOD, place=place, got=got)


def hint(place: str, *, expected: str, got: str, remedy: str) -> Finding:
    """Return something that works but is worth knowing."""
    return Finding(level=Level.HINT, place=place, expected=expected, got=got, remedy=remedy)


def trouble(place: str, *, expected: str, got: str, remedy: str) -> Finding:
    """Return something that does not work."""
    return Finding(level=Level.TROUBLE, place=place, expected=expected, got=got, remedy=remedy)


def run_checks(checks: Sequence[Check], patient: Patient, *, secrets: Sequence[str] = ()) -> list[Finding]:
    """Run every check, whatever becomes of the others, and return what they found.

    Args:
        checks: functions whose names say what they look at.
        patient: what is examined.
        secrets: texts that no finding may show.
    """
    findings: list[Finding] = []
    told: set[str] = set()
    for check in checks:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            found = list(check(patient))
        except MaskloopError as exc:
            cause = _cause(exc)
            found = [_of_error(exc, known=cause in told)]
            told.add(cause)
        except Exception as exc:  # a fault of ours in one check is no reason to keep the rest back
            found = [
                trouble(
                    f"check {name!r}",
                    expected="that it can be made",
                    got=f"{type(exc).__name__}: {exc}",
                    remedy="please report this",
                )
            ]
        findings += [_scrubbed(replace(finding, check=name), secrets) for finding in found]
    return findings


def _cause(exc: MaskloopError) -> str:
    # Every question to a Label Studio that does not answer names another place.
    is_silent = isinstance(exc, StudioError) and exc.status is None
    return StudioError.__name__ if is_silent else str(exc)


def _of_error(exc: MaskloopError, *, known: bool) -> Finding:
    level = Level.UNKNOWN if known else Level.TROUBLE
    return Finding(level=level, place=exc.place, expected=exc.expected, got=exc.got, remedy=exc.remedy)


def _scrubbed(finding: Finding, secrets: Sequence[str]) -> Finding:
    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, STARS) if secret else text
        return text

    return replace(
        finding,
        place=clean(finding.place),
        expected=clean(finding.expected),
        got=clean(finding.got),
        remedy=clean(finding.remedy),
    )
