"""The tree of errors: one root, one leaf for each kind of error that callers handle differently.

MaskloopError
├── ConfigurationError       a setting that cannot work
├── ImageError               an image that cannot be fetched, read or is too large
├── CodecError               a mask or region value that cannot be encoded or decoded
├── LabelConfigError         a label config without what segmentation needs
├── ModelLoadError           a checkpoint that cannot be loaded
├── DependencyError          an installed package that does not work
├── TrainingError            a training that cannot start or did not end well
├── RegistryError            a model version that cannot be stored, found or read
│   └── DamagedVersionError  its files are not those that were registered
├── StoreError               the database does not answer, or refuses
├── QueueError               the queue cannot be started or reached
├── StudioError              Label Studio refused or did not answer
└── ResourceError            a port that is taken, a disk that is full
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class MaskloopError(Exception):
    """Root of all errors raised on purpose; its text gives place, expected, got and remedy."""

    def __init__(self, place: str, *, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"{place}: expected {expected}, got {got}; {remedy}")
        self.place = place
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (queue workers, data loaders): keyword arguments need help there.
        return _rebuild, (type(self), dict(vars(self)))


def _rebuild(kind: type[MaskloopError], facts: dict[str, Any]) -> MaskloopError:
    return kind(**facts)


class ConfigurationError(MaskloopError):
    """A setting that cannot work."""


class ImageError(MaskloopError):
    """An image that cannot be fetched or read, or that is too large."""


class CodecError(MaskloopError):
    """A mask or region value that cannot be encoded or decoded."""


class LabelConfigError(MaskloopError):
    """A label config without what segmentation needs."""


class ModelLoadError(MaskloopError):
    """A checkpoint that cannot be loaded."""


class DependencyError(MaskloopError):
    """An installed package that does not work."""


class TrainingError(MaskloopError):
    """A training that cannot start or did not end well."""


class RegistryError(MaskloopError):
    """A model version that cannot be stored, found or read."""


class DamagedVersionError(RegistryError):
    """A model version whose files are not those that were registered."""


class StoreError(MaskloopError):
    """The database does not answer, or refuses."""


class QueueError(MaskloopError):
    """The queue cannot be started or reached."""


class StudioCause(StrEnum):
    """Why a request to Label Studio failed: what errors are grouped by."""

    ADDRESS = "address"  # what answers there is not Label Studio's API, or the address redirects elsewhere
    CERTIFICATE = "certificate"  # its TLS certificate is not trusted
    UNREACHABLE = "unreachable"  # no connection, or one that broke
    TIMEOUT = "timeout"  # no answer in time
    TOKEN = "token"  # noqa: S105 - the token is not accepted
    SERVER = "server"  # status 5xx
    RATE_LIMIT = "rate_limit"  # status 429
    FORBIDDEN = "forbidden"  # status 403
    MISSING = "missing"  # Label Studio itself says that there is no such thing
    REFUSED = "refused"  # any other status
    ANSWER = "answer"  # an answer of a form that is not known

    @property
    def is_shared(self) -> bool:
        """Whether every other request fails for the same reason, so that one message is enough."""
        return self in SHARED_CAUSES


SHARED_CAUSES = frozenset(
    {
        StudioCause.ADDRESS,
        StudioCause.CERTIFICATE,
        StudioCause.UNREACHABLE,
        StudioCause.TIMEOUT,
        StudioCause.TOKEN,
        StudioCause.SERVER,
        StudioCause.RATE_LIMIT,
    }
)


class StudioError(MaskloopError):
    """Label Studio refused or did not answer."""

    def __init__(
        self,
        place: str,
        *,
        expected: str,
        got: str,
        remedy: str,
        status: int | None = None,
        cause: StudioCause | None = None,
    ) -> None:
        super().__init__(place, expected=expected, got=got, remedy=remedy)
        self.status = status  # HTTP's; None where there was no answer
        self.cause = cause  # None: the error is not about one request


class ResourceError(MaskloopError):
    """A port that is taken, a disk that is full, work above its bound."""


def first_line(exc: BaseException) -> str:
    """Return the error's kind and the first line of its text."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
