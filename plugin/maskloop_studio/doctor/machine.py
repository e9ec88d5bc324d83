"""Checks of this machine and of what maskloop needs: Label Studio, database, queue, model, disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maskloop.errors import ResourceError
from maskloop.settings import Settings
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import Check
from maskloop_studio.doctor.findings import Finding, good, hint, trouble

if TYPE_CHECKING:
    from maskloop.queue.durability import QueueDurability

__all__ = ["MACHINE_CHECKS", "secrets_of"]

TRIED_STUDIO = (1, 23)
FEW_CORES = 4
SHORTEST_SECRET = 4  # removing a shorter one would damage unrelated words
ROOM_BYTES = 2 * 2**30  # of a model version, its checkpoints and some images
FREE_LICENCES = ("apache", "mit", "bsd", "cc0", "cc-by-4", "cc-by-sa")


def check_label_studio(context: CheckContext) -> Iterator[Finding]:
    """Address and token work, the version is one that was tried."""
    client = context.client
    user = client.whoami()
    token = context.settings.label_studio_api_key
    kind = "personal access token" if token and token.get_secret_value().count(".") == 2 else "legacy token"
    yield good(f"Label Studio {client.url}", f"answers; {kind} of {user.email}")
    version = client.studio_version()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers >= TRIED_STUDIO:
        yield good("its version", version)
    else:
        yield hint(
            "Label Studio's version",
            expected="1.23 or newer",
            got=version or "no version",
            remedy="update it",
        )


def check_database(context: CheckContext) -> Iterator[Finding]:
    """It opens, and its tables have the newest form."""
    from sqlalchemy.engine import make_url

    from maskloop.store.migrations import HEAD

    address = make_url(context.settings.resolved_database_url)
    counts = context.store.jobs.counts()
    yield good(
        f"database {address.render_as_string(hide_password=True)}",
        f"tables of revision {HEAD}, {sum(counts.values())} jobs",
    )


def check_home(context: CheckContext) -> Iterator[Finding]:
    """Its files are readable by their owner alone; where they are not, this closes them."""
    from maskloop.home import close_to_others

    home = context.settings.home
    closed = close_to_others(home) if home.exists() else []
    if closed:
        yield hint(
            f"home {home}",
            expected="files that only their owner can read: it holds tokens, images and annotations",
            got=f"{len(closed)} that others could use, now closed; the first: {closed[0]}",
            remedy="run maskloop by its own commands, which make files private whatever the umask is",
        )
    else:
        yield good(f"home {home}", "readable by its owner alone")


def check_schedules(context: CheckContext) -> Iterator[Finding]:
    """Every cron line names a time that comes."""
    from maskloop_studio.runtime.scheduler import read_schedules

    found, bad = read_schedules(context.settings, context.store.projects)
    yield good("schedules", ", ".join(schedule.name for schedule in found))
    for name, reason in bad.items():
        origin, _, problem = reason.partition(": ")
        yield trouble(
            f"schedule {name}",
            expected="a cron line whose time comes",
            got=problem.removeprefix("expected "),
            remedy=f"correct {origin}; the schedule is skipped until then",
        )


def check_queue(context: CheckContext) -> Iterator[Finding]:
    """Workers serve each queue, a scheduler queues lost jobs again, and the server loses none."""
    from maskloop.queue.durability import queue_durability
    from maskloop.queue.spec import QueueName
    from maskloop.queue.valkey import connect_queue
    from maskloop.queue.workers import has_live_scheduler, served_queues

    with contextlib.closing(connect_queue(context.settings)) as connection:
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
        yield from _kept_jobs(queue_durability(connection))


def _kept_jobs(kept: QueueDurability) -> Iterator[Finding]:
    place, waits = "the queue's server", "a lost job waits until the scheduler queues it again"
    if kept.evicts_by is not None:
        yield trouble(
            place,
            expected="maxmemory-policy noeviction",
            got=f"{kept.evicts_by}: it deletes jobs where its memory is full",
            remedy="set `maxmemory-policy noeviction`",
        )
    if not kept.appends:
        yield hint(
            place,
            expected="an append-only file",
            got=f"none: it forgets jobs when it stops; {waits}",
            remedy="set `appendonly yes` and `appendfsync always`",
        )
    elif kept.fsync not in (None, "always"):
        yield hint(
            place,
            expected="appendfsync always",
            got=f"{kept.fsync}: it answers before a job is on disk; {waits}",
            remedy="set `appendfsync always`: beside a busy disk a kill loses jobs else",
        )
    elif kept.evicts_by is None:
        told = "appends" if kept.fsync else "appends; it does not tell when its file is on disk"
        yield good(place, f"{told}, deletes no job")


def check_server(context: CheckContext) -> Iterator[Finding]:
    """Maskloop's HTTP server answers."""
    from maskloop_studio.runtime.health import check_health

    settings = context.settings
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


def check_model(context: CheckContext) -> Iterator[Finding]:
    """The model of the settings loads, and may be used."""
    from maskloop.learning.registry.model_card import origin_of_source
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.segmentation.hub import find_folder

    source = context.settings.model
    checkpoint = load_checkpoint(source, device="cpu")
    yield good(f"model {source}", f"{checkpoint.family}, {len(checkpoint.labels)} classes")
    for warning in checkpoint.warnings:
        got, _, remedy = warning.rpartition("; ")
        yield hint(f"files of {source}", expected="its image processor", got=got, remedy=remedy)
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


def check_engine(context: CheckContext) -> Iterator[Finding]:
    """What models on a CPU are run by."""
    from maskloop.segmentation.checkpoint import resolve_device
    from maskloop.segmentation.graph_export import installed_openvino

    mode = context.settings.openvino
    found = installed_openvino()
    device = resolve_device(context.settings.device)
    if device.type != "cpu":
        yield good("models run by", f"torch on {device}")
    elif mode == "off":
        yield good("models run by", "torch on the CPU; MASKLOOP_OPENVINO is off")
    elif found is not None:
        yield good("models run by", f"OpenVINO {found} for image sizes that it is faster at, else torch")
    elif mode == "on":
        yield trouble(
            "models run by",
            expected="OpenVINO, as MASKLOOP_OPENVINO=on has it",
            got="no such package",
            remedy="pip install 'maskloop[openvino]', or set MASKLOOP_OPENVINO to auto",
        )
    else:
        yield good("models run by", "torch on the CPU; `pip install 'maskloop[openvino]'` may be faster")


def check_registry(context: CheckContext) -> Iterator[Finding]:
    """The model registry answers."""
    from sqlalchemy.engine import make_url

    uri = context.settings.resolved_tracking_uri
    context.registry.alias("maskloop-0", "champion")
    shown = make_url(uri).render_as_string(hide_password=True) if "://" in uri else uri
    yield good(f"model registry {shown}", "answers")


def check_disk(context: CheckContext) -> Iterator[Finding]:
    """There is room for images and versions."""
    home = context.settings.home
    folder = next(place for place in (home, *home.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    place, got = f"disk of {home}", f"{free / 2**30:.1f} GiB free"
    needed = context.settings.min_free_disk_bytes
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
            expected="write permission",
            got="none",
            remedy="give it to the user that runs maskloop, or set MASKLOOP_HOME to another folder",
        )


def check_torchvision(_context: CheckContext) -> Iterator[Finding]:
    """It works, or is not installed."""
    from maskloop.segmentation.hub import check_torchvision as look

    look()
    yield good("torchvision", "works, or is not installed")


def check_threads(_context: CheckContext) -> Iterator[Finding]:
    """On few cores no thread spins."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > cores:
        yield hint(
            "OMP_NUM_THREADS", expected=f"at most {cores}", got=threads, remedy="unset it, or lower it"
        )
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if cores <= FEW_CORES and policy.upper() != "PASSIVE":
        yield hint(
            "OMP_WAIT_POLICY",
            expected=f"PASSIVE on {cores} cores",
            got=policy or "nothing",
            remedy="unset it: the command line sets it",
        )
    yield good("cores", str(cores))


def secrets_of(settings: Settings) -> list[str]:
    """Return the texts that no finding may show, the longest first."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

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
    check_home,
    check_queue,
    check_schedules,
    check_server,
    check_model,
    check_engine,
    check_registry,
    check_disk,
    check_torchvision,
    check_threads,
)
