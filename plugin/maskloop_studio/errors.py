"""Requests that are refused: each kind has its HTTP status; no text repeats the input."""

from __future__ import annotations

from typing import ClassVar

from maskloop.errors import MaskloopError

__all__ = [
    "BadRequestError",
    "ClientGoneError",
    "ForbiddenError",
    "ForeignProjectError",
    "ModelLoadingError",
    "NotFoundError",
    "OverloadedError",
    "RefusedError",
    "TooLargeError",
    "TooSlowError",
    "UnauthorizedError",
    "UnknownHostError",
    "UnreadableError",
    "WrongMediaError",
]


class RefusedError(MaskloopError):
    """Root of the refusals."""

    status: ClassVar[int] = 400


class BadRequestError(RefusedError):
    """A request whose framing contradicts itself."""


class UnauthorizedError(RefusedError):
    """A request without the right credentials or secret."""

    status = 401


class ForeignProjectError(RefusedError):
    """An event of a project that is not connected."""

    status = 403


class ForbiddenError(RefusedError):
    """A page or an action that this reader may not have."""

    status = 403


class NotFoundError(RefusedError):
    """What a page's address names does not exist, or no more."""

    status = 404


class TooSlowError(RefusedError):
    """A body that does not arrive."""

    status = 408


class TooLargeError(RefusedError):
    """A body that is larger than any that is needed."""

    status = 413


class WrongMediaError(RefusedError):
    """A body whose Content-Type is not JSON."""

    status = 415


class UnreadableError(RefusedError):
    """A body that is not JSON, or not of the form that the route takes."""

    status = 422


class ClientGoneError(RefusedError):
    """The client closed the connection before its answer; only the log sees the status."""

    status = 499  # as nginx counts it


class UnknownHostError(RefusedError):
    """A request for a host name that is not this server's."""

    status = 400


class ModelLoadingError(RefusedError):
    """The model is not in memory yet."""

    status = 503


class OverloadedError(RefusedError):
    """Too much is in flight at once."""

    status = 503
