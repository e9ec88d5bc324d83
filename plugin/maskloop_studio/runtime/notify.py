"""Posts to MASKLOOP_NOTIFY_URL, signed and tried again; what is worth one, and the thread that sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop.store.sessions import now

if TYPE_CHECKING:
    import httpx

    from maskloop.settings import Settings
    from maskloop.store.notices import Notice, NoticeRepository

__all__ = ["note_disk", "note_end", "note_lost", "send_due", "send_until", "signature"]

logger = logging.getLogger(__name__)
TOLD_KINDS = (JobKind.TRAINING, JobKind.PRELABEL)  # whose failure is worth a notice
TIMEOUT_S = 10.0
POLL_S = 5.0
BATCH = 50  # notices that are sent before the thread looks whether it should end


def signature(body: bytes, secret: str, *, at: int) -> str:
    """Return the header X-Maskloop-Signature: "t=UNIX SECONDS,v1=HMAC-SHA256 of 't.body', hex".

    Source: the scheme of Stripe's webhooks; the time inside keeps old posts from being sent again.
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def note_end(
    job: Job, status: JobStatus | None, outcome: Mapping[str, Any] | None, notices: NoticeRepository
) -> bool:
    """Put a notice where a job ended that is worth one; return whether it did.

    Args:
        job: as it was claimed, or is now.
        status: how it ended.
        outcome: of a training that ended well.
        notices: the outbox.
    """
    project = f"project {job.project_id}"
    if status is JobStatus.DEAD and job.kind in TOLD_KINDS:
        error = (job.error or "")[:500]
        return notices.put(
            "failed",
            f"{project}: {job.name} failed for good: {error}",
            key=f"failed-{job.name}-{job.finished_at or ''}",
            project_id=job.project_id,
            facts={"job": job.name, "error": error},
        )
    if status is JobStatus.DONE and job.kind is JobKind.TRAINING and outcome:
        release, version = str(outcome["release"]), str(outcome["version"])
        return notices.put(
            release,
            f"{project}: {version} {release}: {outcome['reason']}",
            key=f"verdict-{job.name}",
            project_id=job.project_id,
            facts={name: outcome.get(name) for name in ("version", "base", "reason", "holdout_images")},
        )
    return False


def note_lost(job: Job, notices: NoticeRepository) -> bool:
    """Put a notice about a running job whose worker gave no sign of life for the time of its lease."""
    return notices.put(
        "worker_lost",
        f"project {job.project_id}: the worker of {job.name} is lost; another one goes on with it",
        key=f"lost-{job.name}-{job.started_at}",
        project_id=job.project_id,
        facts={"job": job.name, "started_at": job.started_at},
    )


def note_disk(settings: Settings, notices: NoticeRepository) -> bool:
    """Put a notice, once a day, where MASKLOOP_HOME has less room than MASKLOOP_MIN_FREE_DISK_BYTES."""
    free = shutil.disk_usage(settings.home).free
    if free >= settings.min_free_disk_bytes:
        return False
    return notices.put(
        "disk_low",
        f"{free / 2**20:.0f} MiB are free for MASKLOOP_HOME, "
        f"{settings.min_free_disk_bytes / 2**20:.0f} MiB are needed",
        key=f"disk-{settings.home}-{now():%Y-%m-%d}",
        facts={"free_bytes": free, "least_bytes": settings.min_free_disk_bytes},
    )


def send_until(stop: threading.Event, settings: Settings, notices: NoticeRepository) -> None:
    """Send what is due until `stop` is set; a receiver or database that is away is waited for."""
    with _client(settings) as client:
        while not stop.is_set():
            try:
                send_due(client, settings, notices)
            except MaskloopError as exc:
                log_action(logger, "notices_not_read", level=logging.WARNING, error=exc)
            stop.wait(POLL_S)


def send_due(client: httpx.Client, settings: Settings, notices: NoticeRepository) -> int:
    """Send what is due, oldest first; return how many arrived.

    Raises:
        StoreError: the database does not answer.
    """
    arrived = 0
    for _ in range(BATCH):
        notice = notices.claim()
        if notice is None:
            break
        error = _post(client, notice, settings)
        if error is None:
            notices.sent(notice.notice_id)
            arrived += 1
            continue
        given_up = notices.failed(notice.notice_id, error)
        log_action(
            logger,
            "notice_given_up" if given_up else "notice_not_sent",
            level=logging.ERROR if given_up else logging.WARNING,
            notice=notice.notice_id,
            kind=notice.kind,
            error=error,
        )
    return arrived


def _client(settings: Settings) -> httpx.Client:
    import httpx

    from maskloop_studio.images.network import BoundedTransport
    from maskloop_studio.labelstudio.certificates import tls_context

    transport = BoundedTransport(
        tls=tls_context(settings.ca_bundle), public_only=not settings.allow_private_notify
    )
    return httpx.Client(transport=transport, follow_redirects=False, timeout=TIMEOUT_S)


def _post(client: httpx.Client, notice: Notice, settings: Settings) -> str | None:
    """Post a notice; return why it did not arrive, without the address: it may hold a secret."""
    import httpx

    from maskloop_studio.images.deadline import FetchLimit
    from maskloop_studio.images.network import fetching

    assert settings.notify_url is not None, "nothing is sent without an address"
    body = json.dumps(_content(notice)).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "maskloop"}
    if settings.notify_secret is not None:
        secret = settings.notify_secret.get_secret_value()
        headers["X-Maskloop-Signature"] = signature(body, secret, at=int(time.time()))
    try:
        with (
            fetching(FetchLimit().within(TIMEOUT_S)),
            client.stream(
                "POST", settings.notify_url.get_secret_value(), content=body, headers=headers
            ) as answer,
        ):  # the answer's body is not read: it may be of any length
            return None if answer.is_success else f"the receiver answered {answer.status_code}"
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        return "MASKLOOP_NOTIFY_URL is no address"
    except httpx.HTTPError as exc:
        return type(exc).__name__
    except MaskloopError:
        return "the host is unknown or its address private (MASKLOOP_ALLOW_PRIVATE_NOTIFY=true allows these)"


def _content(notice: Notice) -> dict[str, Any]:
    return {
        "text": f"maskloop: {_escaped(notice.text)}",  # what Slack shows
        "event": notice.kind,
        "id": notice.notice_id,  # the same one again where an answer was lost
        "project": notice.project_id,
        "at": notice.created_at.isoformat(),
        "facts": dict(notice.facts),
    }


def _escaped(text: str) -> str:
    """Return text without Slack's mentions and links: labels and errors are other people's words."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
