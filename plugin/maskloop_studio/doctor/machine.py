"""Checks of this machine and of what maskloop stands on: Label Studio, database, queue, model, disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from maskloop.errors import ResourceError
from maskloop_studio.doctor.findings import Check, Finding, Patient, good, hint, trouble

__all__ = ["MACHINE_CHECKS", "secrets_of"]

TRIED_STUDIO = (1, 23)
FEW_CORES = 4
SHORTEST_SECRET = 4  # taking out a shorter one would leave no sentence readable
ROOM_BYTES = 2 * 2**30  # a model version, its checkpoints and some images
FREE_LICENCES = ("apache", "mit", "bsd", "cc0", "cc-by-4", "cc-by-sa")


def check_label_studio(patient: Patient) -> Iterator[Finding]:
    """Address and token work, the version is one that was tried."""
    client = patient.services.client
    user = client.whoami()
    token = patient.services.settings.label_studio_api_key
    kind = "personal access token" if token and token.get_secret_value().count(".") == 2 else "legacy token"
    yield good(f"Label Studio {client.url}", f"answers; {kind} of {user.email}")
    version = client.studio_version()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers >= TRIED_STUDIO:
        yield good("its version", version)
    else:
        yield hint(
            "Label Studio's version", expected="1.23 or newer", got=version or "none said", remedy="update it"
        )


def check_database(patient: Patient) -> Iterator[Finding]:
    """It opens, in today's form."""
    from sqlalchemy.engine import make_url

    from maskloop.store.migrations import HEAD

    address = make_url(patient.services.settings.resolved_database_url)
    counts = patient.services.store.jobs.counts()
    yield good(
        f"database {address.render_as_string(hide_password=True)}",
        f"form {HEAD}, {sum(counts.values())} jobs",
    )


def check_queue(patient: Patient) -> Iterator[Finding]:
    """Somebody works on each queue, and a scheduler brings back what was lost."""
    from maskloop.queue.spec import QueueName
    from maskloop.queue.valkey import connect_queue
    from maskloop.queue.workers import has_live_scheduler, served_queues

    with contextlib.closing(connect_queue(patient.services.settings)) as connection:
        served = served_queues(connection)
        yield good("queue", "answers")
        for name in QueueName:
            if name.value in served:
                yield good(f"workers of {name.value}", str(served[name.value]))
            else:
                yield trouble(
                    f"workers of {name.value}",
                    expected="at least one, here or elsewhere",
                    got="none",
                    remedy=f"run `maskloop up`, or `maskloop worker --queue {name.value}`",
                )
        if has_live_scheduler(connection):
            yield good("scheduler", "alive")
        else:
            yield hint(
                "scheduler",
                expected="one, on this machine or another",
                got="none on this machine",
                remedy="run `maskloop up` or `maskloop scheduler`, unless it runs elsewhere",
            )


def check_server(patient: Patient) -> Iterator[Finding]:
    """Maskloop's HTTP server answers."""
    from maskloop_studio.runtime.health import check_health

    settings = patient.services.settings
    place = f"maskloop's server at {settings.host}:{settings.port}"
    try:
        check_health(settings)
    except ResourceError as exc:
        yield hint(
            place,
            expected="an answer",
            got=exc.got,
            remedy="run `maskloop up` or `maskloop serve`, unless it runs on another machine or port",
        )
    else:
        yield good(place, "answers")


def check_model(patient: Patient) -> Iterator[Finding]:
    """The model of the settings loads, and may be used."""
    from maskloop.learning.registry.model_card import origin_of_source
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.segmentation.hub import find_folder

    source = patient.services.settings.model
    checkpoint = load_checkpoint(source, device="cpu")
    yield good(f"model {source}", f"{checkpoint.family}, {len(checkpoint.labels)} classes")
    licence = origin_of_source(source, find_folder(source)).licence
    if licence.lower().startswith(FREE_LICENCES):
        yield good("its licence", licence)
    else:
        yield hint(
            f"licence of {source}",
            expected="one that allows what you do with it",
            got=licence,
            remedy="read its card: many checkpoints forbid commercial use",
        )


def check_registry(patient: Patient) -> Iterator[Finding]:
    """The model registry answers."""
    from sqlalchemy.engine import make_url

    uri = patient.services.settings.resolved_tracking_uri
    patient.services.registry.alias("maskloop-0", "champion")
    shown = make_url(uri).render_as_string(hide_password=True) if "://" in uri else uri
    yield good(f"model registry {shown}", "answers")


def check_disk(patient: Patient) -> Iterator[Finding]:
    """There is room for images and versions."""
    home = patient.services.settings.home
    folder = next(place for place in (home, *home.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    place, got = f"disk of {home}", f"{free / 2**30:.1f} GiB free"
    needed = patient.services.settings.min_free_disk_bytes
    remedy = "`maskloop models prune`, make room, or set MASKLOOP_HOME to another disk"
    if free < needed:
        yield trouble(place, expected=f"{needed / 2**20:.0f} MiB free", got=got, remedy=remedy)
    elif free < ROOM_BYTES:
        yield hint(place, expected=f"{ROOM_BYTES / 2**30:.0f} GiB free", got=got, remedy=remedy)
    else:
        yield good(place, got)
    if not os.access(folder, os.W_OK):
        yield trouble(
            f"folder {folder}",
            expected="that we may write there",
            got="that we may not",
            remedy="give its rights to the user that runs maskloop",
        )


def check_torchvision(_patient: Patient) -> Iterator[Finding]:
    """No torchvision, or one that works."""
    from maskloop.segmentation.hub import check_torchvision as look

    look()
    yield good("torchvision", "none that is broken")


def check_threads(_patient: Patient) -> Iterator[Finding]:
    """On few cores no thread spins."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > cores:
        yield hint("OMP_NUM_THREADS", expected=f"at most {cores}", got=asked, remedy="unset it, or lower it")
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if cores <= FEW_CORES and policy.upper() != "PASSIVE":
        yield hint(
            "OMP_WAIT_POLICY",
            expected=f"PASSIVE on {cores} cores",
            got=policy or "nothing",
            remedy="unset it: the command line sets it",
        )
    yield good("cores", str(cores))


def secrets_of(patient: Patient) -> list[str]:
    """Return the texts that are not to be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    settings = patient.services.settings
    secrets = [settings.label_studio_api_key, settings.webhook_secret, settings.basic_auth_password]
    texts = [secret.get_secret_value() for secret in secrets if secret is not None]
    for address in (settings.database_url, settings.redis_url, settings.mlflow_tracking_uri):
        with contextlib.suppress(ArgumentError, ValueError):
            password = make_url(address).password if address else None
            texts += [str(password)] if password else []
    return sorted((text for text in texts if len(text) >= SHORTEST_SECRET), key=len, reverse=True)


MACHINE_CHECKS: tuple[Check, ...] = (
    check_label_studio,
    check_database,
    check_queue,
    check_server,
    check_model,
    check_registry,
    check_disk,
    check_torchvision,
    check_threads,
)
