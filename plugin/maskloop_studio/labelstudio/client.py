"""Label Studio's API as the loop uses it, typed.

Predictions and tabs have modules of their own; `transport` sends, `models` holds the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx

from maskloop.errors import ConfigurationError, StudioError
from maskloop_studio.labelstudio.data_manager import (
    BY_ID,
    TASK_FIELDS,
    one_task,
    pages_by_change,
    pages_by_id,
    stamp_params,
    task_params,
)
from maskloop_studio.labelstudio.models import (
    Json,
    Presence,
    ProjectState,
    StampedTask,
    StudioBackend,
    StudioProject,
    StudioTask,
    StudioUser,
    TaskPage,
    to_backend,
    to_page,
    to_project,
    to_task,
    to_user,
)
from maskloop_studio.labelstudio.predictions import PredictionCalls
from maskloop_studio.labelstudio.tabs import ViewCalls
from maskloop_studio.labelstudio.transport import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from maskloop.settings import Settings

__all__ = ["StudioBackend", "StudioClient", "StudioProject", "StudioTask", "StudioUser", "require_studio"]

BASIC_AUTH, NO_AUTH = "BASIC_AUTH", "NONE"  # Label Studio's terms


class StudioClient(PredictionCalls, ViewCalls):
    """One Label Studio with one token; may be shared by threads.

    Every method raises StudioError when Label Studio cannot be reached, refuses, or answers in another form.
    """

    def whoami(self) -> StudioUser:
        """Return the account that the token belongs to."""
        return self._json("GET", "api/current-user/whoami", read=to_user)

    def users(self) -> list[StudioUser]:
        """Return the accounts of the token's organization."""
        return self._json("GET", "api/users/", read=lambda raw: [to_user(one) for one in raw])

    def project(self, project_id: int) -> StudioProject:
        """Return a project."""
        return self._json("GET", f"api/projects/{project_id}/", read=to_project)

    def find_project(self, project_id: int) -> StudioProject | None:
        """Return a project, or None where Label Studio itself answers that there is none.

        Before anything is removed because of it, use `project_state` several times instead.
        """
        return self._find(f"api/projects/{project_id}/", read=to_project)

    def project_state(self, project_id: int) -> ProjectState:
        """Return whether Label Studio has a project; never raises StudioError.

        A 404 counts as missing only where it is Label Studio's own and the token works for another request.
        """
        try:
            project = self.find_project(project_id)
            if project is not None:
                return ProjectState(presence=Presence.PRESENT, project=project)
            self.whoami()
        except StudioError as exc:
            return ProjectState(presence=Presence.UNKNOWN, error=exc)
        return ProjectState(presence=Presence.MISSING)

    def create_project(self, title: str, label_config: str, **fields: Any) -> StudioProject:
        """Return a new project; `title` has 3 to 50 characters."""
        body = {"title": title, "label_config": label_config, **fields}
        return self._json("POST", "api/projects/", body, read=to_project)

    def update_project(self, project_id: int, **fields: Any) -> StudioProject:
        """Change a project's fields, e.g. `model_version` or `sampling`.

        Label Studio accepts a `model_version` only when predictions of that version are stored or a backend
        has that title.
        """
        return self._json("PATCH", f"api/projects/{project_id}/", fields, read=to_project)

    def delete_project(self, project_id: int) -> None:
        """Delete a project with all its tasks and annotations."""
        self._request("DELETE", f"api/projects/{project_id}/")

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks (`{"data": {...}}`) and return their ids, in order."""
        return self._json(
            "POST",
            f"api/projects/{project_id}/import",
            list(tasks),
            params={"return_task_ids": "true"},
            read=lambda answer: [int(task_id) for task_id in answer["task_ids"]],
        )

    def upload_image(self, project_id: int, name: str, data: bytes) -> str:
        """Upload an image file, without making a task of it, and return its address for a task's data."""
        upload_id = self._request(
            "POST",
            f"api/projects/{project_id}/import",
            files={"file": (name, data)},
            params={"commit_to_project": "false"},
            read=lambda response: int(response.json()["file_upload_ids"][0]),
        )
        path = f"api/import/file-upload/{upload_id}"
        return self._json("GET", path, read=lambda answer: f"/data/{answer['file']}")

    def iter_tasks(self, project_id: int, *, only_unlabelled: bool = False) -> Iterator[StudioTask]:
        """Yield a project's tasks in the order of their ids, without annotations and predictions.

        Pages go by id, not by number: tasks that are labelled meanwhile do not shift the rest.
        """
        last_id = 0
        while True:
            params = task_params(project_id, after_id=last_id, only_unlabelled=only_unlabelled)
            tasks, total = self._json("GET", "api/tasks", params=params, read=_to_tasks)
            yield from tasks
            # Label Studio may cap a page's size: a short page alone is no sign of the end.
            if len(tasks) >= total or not tasks:
                return
            last_id = tasks[-1].id

    def count_tasks(self, project_id: int, *, only_unlabelled: bool = False) -> int:
        """Return how many tasks there are."""
        params = task_params(project_id, only_unlabelled=only_unlabelled, page_size=1)
        return self._json("GET", "api/tasks", params=params, read=lambda answer: int(answer["total"]))

    def stamp_pages(self, project_id: int) -> Iterator[TaskPage]:
        """Yield all tasks with their annotations' stamps, skipped ones too, in the order of their ids."""
        yield from pages_by_id(lambda filters, ordering: self._stamps(project_id, filters, ordering))

    def changed_pages(self, project_id: int, since: datetime | None) -> Iterator[TaskPage]:
        """Yield the annotated tasks that changed since a moment, oldest change first, with the stamps.

        A task whose last annotation is gone is not among them, nor a deleted one.
        """
        yield from pages_by_change(
            lambda filters, ordering: self._stamps(project_id, filters, ordering), since
        )

    def stamped_task(self, project_id: int, task_id: int) -> StampedTask | None:
        """Return one task with its annotations' stamps, skipped ones too, or None where there is none."""
        page = self._stamps(project_id, one_task(task_id), BY_ID)
        return page.tasks[0] if page.tasks else None

    def _stamps(self, project_id: int, filters: Json, ordering: str) -> TaskPage:
        return self._request(
            "GET", "api/tasks", params=stamp_params(project_id, filters, ordering), read=_to_stamp_page
        )

    def task(self, task_id: int, *, project_id: int | None = None) -> StudioTask | None:
        """Return one task, or None where there is none.

        Give its project where it is known: without it Label Studio treats the task as opened, and calls the
        labeling backend's /predict first when the task has no prediction yet.
        """
        if project_id is not None:
            params = task_params(project_id, task_id=task_id)
            tasks, _ = self._find("api/tasks", params=params, read=_to_tasks) or ([], 0)
            return tasks[0] if tasks else None
        return self._find(f"api/tasks/{task_id}", params={"include": TASK_FIELDS}, read=to_task)

    def update_task(self, task_id: int, *, data: Mapping[str, Any]) -> None:
        """Replace a task's data; its annotations and predictions stay."""
        self._request("PATCH", f"api/tasks/{task_id}/", body={"data": dict(data)})

    def task_annotations(self, task_id: int) -> list[Json]:
        """Return a task's annotations as Label Studio gives them; skipped ones are not among them."""
        return self._json("GET", f"api/tasks/{task_id}/annotations/", read=list)

    def next_task(self, project_id: int) -> Json | None:
        """Return the task that Label Studio would show next, or None when all are done."""
        return self._find(f"api/projects/{project_id}/next", read=dict)

    def annotation(self, annotation_id: int) -> Json | None:
        """Return an annotation as Label Studio gives it, or None where there is none."""
        return self._find(f"api/annotations/{annotation_id}/", read=dict)

    def create_annotation(self, task_id: int, annotation: Mapping[str, Any]) -> Json:
        """Submit an annotation (`result`, `lead_time`, `parent_prediction` ...) and return it as stored."""
        return self._json("POST", f"api/tasks/{task_id}/annotations/", dict(annotation), read=dict)

    def update_annotation(self, annotation_id: int, **fields: Any) -> Json:
        """Change an annotation's fields and return it as stored."""
        return self._json("PATCH", f"api/annotations/{annotation_id}/", fields, read=dict)

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation."""
        self._request("DELETE", f"api/annotations/{annotation_id}/")

    def backends(self, project_id: int) -> list[StudioBackend]:
        """Return a project's labeling backends; Label Studio calls each of them before it answers."""
        return self._json(
            "GET",
            "api/ml",
            params={"project": project_id},
            timeout_s=CONNECT_TIMEOUT_S,
            read=lambda answer: [to_backend(raw) for raw in answer],
        )

    def connect_backend(
        self,
        project_id: int,
        url: str,
        title: str,
        *,
        is_interactive: bool = False,
        credentials: tuple[str, str] | None = None,
    ) -> int:
        """Add a labeling backend, or reuse the one with this address, and return its id.

        Label Studio calls the backend's /health and /setup meanwhile, and registers `<url>/webhook` for
        all events of the project. Where the project has no `model_version` yet, it becomes the title.

        Args:
            project_id: Label Studio's number.
            url: where Label Studio reaches the backend.
            title: its name in Label Studio.
            is_interactive: Label Studio's "interactive preannotations": it is called while an annotator
                draws with a smart tool.
            credentials: user and password of HTTP Basic authentication, sent with every call.
        """
        method = NO_AUTH if credentials is None else BASIC_AUTH
        body = {"project": project_id, "url": url.rstrip("/"), "auth_method": method}
        if credentials is not None:
            body |= {"basic_auth_user": credentials[0], "basic_auth_pass": credentials[1]}
        for backend in self.backends(project_id):
            if backend.url.rstrip("/") == url.rstrip("/"):
                # Label Studio never shows a stored password, so it is set again.
                same = backend.auth_method == method and backend.is_interactive == is_interactive
                if credentials is not None or not same:
                    body |= {"is_interactive": is_interactive}
                    self._json("PATCH", f"api/ml/{backend.id}", body, timeout_s=CONNECT_TIMEOUT_S)
                return backend.id
        body |= {"title": title, "is_interactive": is_interactive}
        return self._json("POST", "api/ml", body, timeout_s=CONNECT_TIMEOUT_S, read=_to_id)

    def delete_backend(self, project_id: int, backend_id: int) -> None:
        """Remove a labeling backend, and the webhook that Label Studio made for it but would leave."""
        backend = self._json("GET", f"api/ml/{backend_id}", timeout_s=CONNECT_TIMEOUT_S, read=to_backend)
        url = backend.url.rstrip("/") + "/webhook"
        self._request("DELETE", f"api/ml/{backend_id}")
        for webhook in self.webhooks(project_id):
            if webhook["url"] == url:
                self.delete_webhook(int(webhook["id"]))

    def start_training(self, backend_id: int) -> None:
        """Do what the button "Start Training" does: the backend gets the webhook event START_TRAINING."""
        self._request("POST", f"api/ml/{backend_id}/train", body={"use_ground_truth": False})

    def webhooks(self, project_id: int) -> list[Json]:
        """Return a project's webhooks as Label Studio gives them; `to_webhook` makes values of them."""
        return self._json("GET", "api/webhooks/", params={"project": project_id}, read=list)

    def organization_webhooks(self) -> list[Json]:
        """Return the webhooks of the token's organization that belong to no project."""
        return self._json("GET", "api/webhooks/", params={"project": "null"}, read=list)

    def create_webhook(self, **fields: Any) -> int:
        """Make a webhook (`url`, `project`, `headers`, `actions` ...) and return its id."""
        return self._json("POST", "api/webhooks/", fields, read=_to_id)

    def update_webhook(self, webhook_id: int, **fields: Any) -> None:
        """Change a webhook; without `actions` Label Studio removes those that it has."""
        self._json("PATCH", f"api/webhooks/{webhook_id}/", fields)

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self._request("DELETE", f"api/webhooks/{webhook_id}/")


def require_studio(settings: Settings) -> tuple[str, str]:
    """Return the address and the token of Label Studio.

    Raises:
        ConfigurationError: one of them is not set.
    """
    if not settings.label_studio_url or settings.label_studio_api_key is None:
        name = "LABEL_STUDIO_API_KEY" if settings.label_studio_url else "LABEL_STUDIO_URL"
        raise ConfigurationError(
            f"setting {name}",
            expected="the address and a token of Label Studio",
            got="nothing",
            remedy=f"set {name}; the token is shown in Label Studio under Account & Settings",
        )
    return settings.label_studio_url, settings.label_studio_api_key.get_secret_value()


def _to_id(raw: Json) -> int:
    return int(raw["id"])


def _to_tasks(answer: Json) -> tuple[list[StudioTask], int]:
    return [to_task(raw) for raw in answer["tasks"]], int(answer["total"])


def _to_stamp_page(response: httpx.Response) -> TaskPage:
    return to_page(response.json(), _date(response.headers.get("date")))


def _date(header: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(header) if header else None
    except ValueError:
        return None
