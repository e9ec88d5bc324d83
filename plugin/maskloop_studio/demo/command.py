"""`maskloop demo`: start everything on loopback, run the rounds, print the figures, end everything."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import SecretStr
from rich.console import Console

from maskloop.log import configure_logging
from maskloop.processes import find_free_port
from maskloop.settings import Settings, load_settings
from maskloop_studio.demo.annotator import SimulatedAnnotator
from maskloop_studio.demo.images import DemoMaterial, coco_material, made_up_material
from maskloop_studio.demo.report import DemoReport, RoundReport
from maskloop_studio.demo.rounds import DemoLoop, TaskPlan, plan_tasks
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.demo.studio_env import install_studio
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.runtime.progress_bar import progress_bar
from maskloop_studio.runtime.supervisor import Supervisor
from maskloop_studio.services import Services

__all__ = ["run_demo"]

HOST = "127.0.0.1"
PER_ROUND = 16  # images corrected in a round
HOLDOUT_LEAST = 3  # with fewer each training would be judged by further trainings
HOLDOUT_FRACTION = 0.35  # larger than in earnest: a handful of images would judge by chance
SPARE = 12  # images left over to look at


def run_demo(
    *, rounds: int, exit_after: bool, json_file: Path | None, coco: Path | None, port: int | None
) -> None:
    """Run the demo.

    Args:
        rounds: number of trainings.
        exit_after: end after the last round.
        json_file: where the report is written.
        coco: a folder with images/ and instances.json in place of made-up images.
        port: Label Studio's; a free one by default.
    """
    started = time.monotonic()
    # Not a terminal: lines are not wrapped.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=120, soft_wrap=True)
    configure_logging(load_settings().log, level=logging.WARNING)
    signal.signal(signal.SIGTERM, _exit)
    count = math.ceil(rounds * PER_ROUND / (1 - HOLDOUT_FRACTION)) + SPARE
    material = coco_material(coco, limit=count) if coco else made_up_material(count)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_own_home(load_settings().home))
        console.print(f"home: {home}")
        studio = stack.enter_context(_studio(home, port))
        console.print(f"Label Studio: {studio.url}  login {studio.username}  password {studio.password}")
        settings = _settings(home, studio)
        services = Services(settings)
        stack.callback(services.close)
        project_id, plan = _prepare(material, services, rounds=rounds)
        supervisor = Supervisor(
            settings, host=HOST, port=settings.port, environment=_environment(settings, plan)
        )
        loop = DemoLoop(
            project_id=project_id,
            plan=plan,
            services=services,
            annotator=SimulatedAnnotator(services.client, seed=settings.seed),
            label_config=parse_label_config(material.label_config),
            heartbeat=supervisor.watch,
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        console.print(f"maskloop: {supervisor.url}   project: {studio.url}/projects/{loop.project_id}/data")
        connection = connect_project(loop.project_id, supervisor.url, services, new_labels=coco is not None)
        report = _run_rounds(loop, connection.model_version, rounds, console, started)
        report.print(console)
        if json_file is not None:
            report.write(json_file)
        if not exit_after:
            _stay(studio, loop, supervisor, console)


@contextlib.contextmanager
def _own_home(parent: Path) -> Iterator[Path]:
    """Make a home for this demo alone; it is removed when the demo ends without an error."""
    parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    yield home
    shutil.rmtree(home, ignore_errors=True)


def _studio(home: Path, port: int | None) -> RealStudio:
    """Label Studio's environment lies beside ours, so that it is installed once for all demos."""
    named = os.environ.get("MASKLOOP_STUDIO_ENV")
    env_dir = Path(named) if named else Path(sys.prefix).parent / ".venv-studio"
    bar = progress_bar()
    shown = bar.add_task("Label Studio", total=1.0)

    def note(done: float, text: str) -> None:
        bar.update(shown, completed=done, description=text)

    with bar:
        install_studio(env_dir, progress=note)
    return RealStudio(home / "label-studio", env_dir=env_dir, port=port)


def _settings(home: Path, studio: RealStudio) -> Settings:
    return load_settings().model_copy(
        update={
            "home": home,
            "label_studio_url": studio.url,
            "label_studio_api_key": SecretStr(studio.token),
            "database_url": None,
            "redis_url": None,
            "mlflow_tracking_uri": None,
            "holdout_fraction": HOLDOUT_FRACTION,
            "port": find_free_port(),
        }
    )


def _prepare(material: DemoMaterial, services: Services, *, rounds: int) -> tuple[int, TaskPlan]:
    """Make the project with its tasks, and plan what to do with them."""
    client, settings = services.client, services.settings
    project = client.create_project("maskloop demo", material.label_config)
    with progress_bar() as bar:
        addresses = [
            client.upload_image(project.id, image.name, image.data)
            for image in bar.track(material.images, description="uploading images")
        ]
    task_ids = client.import_tasks(project.id, [{"data": {"image": address}} for address in addresses])
    plan = plan_tasks(
        project.id,
        dict(zip(task_ids, material.images, strict=True)),
        holdout_fraction=settings.holdout_fraction,
        rounds=rounds,
        per_round=PER_ROUND,
    )
    return project.id, plan


def _environment(settings: Settings, plan: TaskPlan) -> dict[str, str]:
    """Return the variables of maskloop's parts."""
    assert settings.label_studio_url is not None
    assert settings.label_studio_api_key is not None
    return {
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "MASKLOOP_TRAIN_AFTER": str(plan.per_round),
        "MASKLOOP_TRAIN_QUIET_S": "0",
        **({} if settings.train_steps is None else {"MASKLOOP_TRAIN_STEPS": str(settings.train_steps)}),
        "MASKLOOP_HOLDOUT_FRACTION": str(settings.holdout_fraction),
        "MASKLOOP_HOLDOUT_LEAST": str(HOLDOUT_LEAST),
        "MASKLOOP_MODEL": settings.model,
        "MASKLOOP_TASK": settings.task.value,
    }


def _run_rounds(
    loop: DemoLoop, model_version: str, rounds: int, console: Console, started: float
) -> DemoReport:
    loop.wait_for_predictions(model_version)
    console.print(f"{len(loop.plan.images)} images are pre-annotated by {model_version}")
    loop.label_holdout()
    console.print(f"holdout: {len(loop.plan.holdout)} images are labelled and will only judge")
    rows: list[RoundReport] = []
    for number in range(1, rounds + 1):
        row = loop.run_round(number)
        console.print(f"round {number}: {'promoted' if row.promoted else 'not promoted'}; {row.reason}")
        rows.append(row)
    return DemoReport(rounds=tuple(rows), seconds=time.monotonic() - started)


def _stay(studio: RealStudio, loop: DemoLoop, supervisor: Supervisor, console: Console) -> None:
    console.print(
        f"Look at {studio.url}/projects/{loop.project_id}/data  (login {studio.username}, "
        f"password {studio.password}); status: {supervisor.url}/; Ctrl-C ends everything"
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            supervisor.watch()
            time.sleep(1.0)


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(143)  # so that every `with` above ends what it started
