"""The same predictions and the same intake as a model of the label-studio-ml host (1.0.9, and 2.x).

Our own server speaks the whole protocol; this is for those who run that host already. It needs the extra
`maskloop[label-studio-ml]`.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskloop.errors import CodecError, DependencyError
from maskloop_studio.intake.webhook import KNOWN_ACTIONS, receive_event
from maskloop_studio.labelstudio.protocol import PredictRequest, SetupRequest, WebhookEvent
from maskloop_studio.projects.setting_records import note_settings_beside
from maskloop_studio.services import process_services
from maskloop_studio.serving.handlers import RequestHandlers

__all__ = ["MaskloopModel", "process_handlers"]

try:
    LabelStudioMLBase: Any = importlib.import_module("label_studio_ml.model").LabelStudioMLBase
except ImportError as exc:
    raise DependencyError(
        "label-studio-ml",
        expected="an installed label-studio-ml",
        got=str(exc),
        remedy="pip install 'maskloop[label-studio-ml]'",
    ) from exc


@functools.lru_cache(maxsize=1)
def process_handlers() -> RequestHandlers:
    """Return this process's handlers: the host builds a model per request, the checkpoint is loaded once."""
    services = process_services()
    handlers = RequestHandlers(services)
    handlers.start()
    note_settings_beside(services, process="a host of label-studio-ml")
    return handlers


class MaskloopModel(LabelStudioMLBase):  # type: ignore[misc]
    """Pre-annotates with the project's champion and hands events to the intake; trains nothing by itself."""

    # The host passes on only these; its own four miss START_TRAINING and the plural ANNOTATIONS_DELETED.
    TRAIN_EVENTS = tuple(sorted(KNOWN_ACTIONS))

    def setup(self) -> None:
        """Name the version that answers; host 2.x calls this whenever it builds a model, 1.0.9 never."""
        request = SetupRequest.model_validate({"project": self._host_project()})
        handlers = process_handlers()
        project_id = handlers.connected(request.project)
        if project_id is not None:
            handlers.directory.follow(project_id)
        self.set("model_version", handlers.directory.tag(project_id))

    def set_extra_params(self, extra_params: object) -> None:
        """Take the backend's extra_params; host 2.x calls this for /setup.

        The host checks its own login, so whoever comes this far may change options.

        Raises:
            LabelConfigError: a value that cannot work.
        """
        request = SetupRequest.model_validate({"project": self._host_project(), "extra_params": extra_params})
        process_handlers().setup(request, is_trusted=True)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return one entry a task, in order: a prediction with `result`, `score` and `model_version`.

        A task that cannot be predicted gets `[]`, so that Label Studio stores nothing and asks again.

        Args:
            tasks: as Label Studio sends them.
            context: the prompt of an interactive call; host 2.x passes `{}` where there is none.
            kwargs: what else the host passes on; not used.

        Raises:
            LabelConfigError: the label config has no image or nothing to draw with.
            ModelLoadError: the model cannot be loaded.
        """
        project = next((task["project"] for task in tasks if task.get("project")), self._host_project())
        request = PredictRequest.model_validate(
            {
                "tasks": tasks,
                "project": project,
                "label_config": self.label_config or "",
                "params": {"context": context or None},
            }
        )
        results: list[Any] = process_handlers().predict(request).model_dump()["results"]
        return results

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Keep an event and queue its work, as the webhook does; a worker trains when it is due.

        Called as `fit((), event=..., data=..., workdir=...)` by 1.0.9 and as `fit(event, data)` by 2.x.

        Raises:
            CodecError: the event is of unknown kind or names no project.
        """
        event = kwargs.get("event") or next((arg for arg in args if isinstance(arg, str)), None)
        data = kwargs.get("data") or next((arg for arg in args if isinstance(arg, Mapping)), None)
        if event is None or data is None:
            raise CodecError(
                "fit",
                expected="an event and its data",
                got=f"event {event!r}, data {type(data).__name__}",
                remedy="start trainings by webhook, with the Start Training button or with `maskloop train`",
            )
        _keep_event(event, data)
        _remove_job_dir(kwargs.get("workdir"))

    def _host_project(self) -> str | None:
        """Return the project that host 2.x built this model for; 1.0.9 names none."""
        return str(getattr(self, "project_id", "") or "") or None


def _keep_event(event: str, data: Mapping[str, Any]) -> None:
    services = process_services()
    webhook = WebhookEvent.model_validate_json(json.dumps({**data, "action": event}, default=str))
    receive_event(webhook, store=services.store, queue=services.queue)


def _remove_job_dir(workdir: object) -> None:
    """Remove the folder that 1.0.9 made for one event.

    It would keep the events for ever, and log an error for each that is no training whenever it is set up.
    """
    if not isinstance(workdir, str):
        return
    (Path(workdir) / "event.json").unlink(missing_ok=True)
    if Path(workdir).is_dir() and not any(Path(workdir).iterdir()):
        Path(workdir).rmdir()
