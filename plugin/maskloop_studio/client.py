"""Label Studio's API as the loop uses it: a thin typed shell around label-studio-sdk.

The SDK brings tokens (both kinds, refreshed), the connection and retries. The narrow `base_client` is
imported, and only on first use: the SDK's front door costs a second more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from maskloop.errors import ConfigurationError, StudioError
from maskloop_studio.access.client_errors import refused_error, unreachable_error

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

    from maskloop.settings import Settings

__all__ = ["StudioBackend", "StudioClient", "StudioProject", "StudioTask", "StudioUser", "require_studio"]

Json: TypeAlias = dict[str, Any]

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 150.0  # adding a backend makes Label Studio call it (health, setup) before it answers
PAGE_SIZE = 200
TASK_FIELDS = "id,project,data,is_labeled,total_predictions,updated_at"


@dataclass(frozen=True, kw_only=True)
class StudioProject:
    """What the loop needs to know of a project."""

    id: int
    title: str
    label_config: str
    model_version: str  # whose predictions are shown; empty when none were chosen
    sampling: str
    task_count: int
    raw: Mapping[str, Any] = field(repr=False)  # the whole answer


@dataclass(frozen=True, kw_only=True)
class StudioTask:
    """A task without its annotations and predictions."""

    id: int
    project_id: int
    data: Mapping[str, Any]
    is_labeled: bool
    total_predictions: int
    updated_at: str  # ISO 8601


@dataclass(frozen=True, kw_only=True)
class StudioBackend:
    """A labeling backend as Label Studio knows it."""

    id: int
    url: str
    title: str
    model_version: str
    state: str  # CO connected, DI disconnected, ER error, TR training, PR predicting


@dataclass(frozen=True, kw_only=True)
class StudioUser:
    """Whose token is used."""

    id: int
    email: str


class StudioClient:
    """One Label Studio with one token; may be shared by threads.

    Every method raises StudioError when Label Studio cannot be reached or refuses.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"StudioClient({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        sdk = self.__dict__.pop("_sdk", None)
        if sdk is not None:
            sdk._client_wrapper.httpx_client.httpx_client.close()

    def whoami(self) -> StudioUser:
        """Return whose token is used."""
        raw = self._json("GET", "api/current-user/whoami")
        return StudioUser(id=int(raw["id"]), email=str(raw["email"]))

    def project(self, project_id: int) -> StudioProject:
        """Return a project."""
        return _to_project(self._json("GET", f"api/projects/{project_id}/"))

    def create_project(self, title: str, label_config: str, **fields: Any) -> StudioProject:
        """Return a new project; `title` has 3 to 50 characters."""
        return _to_project(
            self._json("POST", "api/projects/", {"title": title, "label_config": label_config, **fields})
        )

    def update_project(self, project_id: int, **fields: Any) -> StudioProject:
        """Change a project's fields, e.g. `model_version` or `sampling`.

        Label Studio takes a `model_version` only when predictions of that version are stored or a backend
        has that title.
        """
        return _to_project(self._json("PATCH", f"api/projects/{project_id}/", fields))

    def delete_project(self, project_id: int) -> None:
        """Delete a project with all its tasks and annotations."""
        self._request("DELETE", f"api/projects/{project_id}/")

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks (`{"data": {...}}`) and return their ids, in order."""
        answer = self._json(
            "POST", f"api/projects/{project_id}/import", list(tasks), params={"return_task_ids": "true"}
        )
        return [int(task_id) for task_id in answer["task_ids"]]

    def upload_image(self, project_id: int, name: str, data: bytes) -> str:
        """Upload an image file, without making a task of it, and return its address for a task's data."""
        answer = self._request(
            "POST",
            f"api/projects/{project_id}/import",
            files={"file": (name, data)},
            params={"commit_to_project": "false"},
        ).json()
        upload = self._json("GET", f"api/import/file-upload/{int(answer['file_upload_ids'][0])}")
        return f"/data/{upload['file']}"

    def iter_tasks(self, project_id: int, *, only_unlabelled: bool = False) -> Iterator[StudioTask]:
        """Yield a project's tasks in the order of their ids, without annotations and predictions.

        Pages go by id, not by number: tasks that are labelled meanwhile do not shift the rest.
        """
        last_id = 0
        while True:
            page = self._json("GET", "api/tasks", params=_page_params(project_id, last_id, only_unlabelled))[
                "tasks"
            ]
            for raw in page:
                yield _to_task(raw)
            if len(page) < PAGE_SIZE:
                return
            last_id = int(page[-1]["id"])

    def count_tasks(self, project_id: int, *, only_unlabelled: bool = False) -> int:
        """Return how many tasks there are."""
        params = _page_params(project_id, 0, only_unlabelled) | {"page_size": 1}
        return int(self._json("GET", "api/tasks", params=params)["total"])

    def task(self, task_id: int, *, project_id: int | None = None) -> StudioTask | None:
        """Return one task, or None where there is none.

        Name its project where it is known: without it Label Studio takes the task as opened, and calls the
        labeling backend's /predict first when the task has no prediction yet.
        """
        if project_id is not None:
            params = _query_params(project_id, [_id_filter("equal", task_id)])
            answer = self._json_or_none("api/tasks", params=params)
            return _to_task(answer["tasks"][0]) if answer and answer["tasks"] else None
        raw = self._json_or_none(f"api/tasks/{task_id}", params={"include": TASK_FIELDS})
        return None if raw is None else _to_task(raw)

    def task_annotations(self, task_id: int) -> list[Json]:
        """Return a task's annotations as Label Studio says them."""
        answer = self._json("GET", f"api/tasks/{task_id}/annotations/")
        return list(answer)

    def next_task(self, project_id: int) -> Json | None:
        """Return the task that Label Studio would show next, or None when all are done."""
        return self._json_or_none(f"api/projects/{project_id}/next")

    def create_prediction(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        score: float | None = None,
        cluster: int | None = None,
        model_version: str,
    ) -> int:
        """Store a prediction and return its id."""
        body = {
            "task": task_id,
            "result": list(result),
            "score": score,
            "cluster": cluster,
            "model_version": model_version,
        }
        return int(self._json("POST", "api/predictions/", body)["id"])

    def prediction(self, prediction_id: int) -> Json | None:
        """Return a prediction as Label Studio says it, or None where there is none."""
        return self._json_or_none(f"api/predictions/{prediction_id}/")

    def predictions_of(self, task_id: int) -> list[Json]:
        """Return a task's stored predictions as Label Studio says them."""
        answer = self._json("GET", "api/predictions/", params={"task": task_id})
        return list(answer)

    def prediction_ids(self, task_id: int, model_version: str) -> list[int]:
        """Return the ids of a task's predictions of one version, oldest first."""
        found = self.predictions_of(task_id)
        return sorted(int(raw["id"]) for raw in found if raw.get("model_version") == model_version)

    def annotation(self, annotation_id: int) -> Json | None:
        """Return an annotation as Label Studio says it, or None where there is none."""
        return self._json_or_none(f"api/annotations/{annotation_id}/")

    def create_annotation(self, task_id: int, annotation: Mapping[str, Any]) -> Json:
        """Submit an annotation (`result`, `lead_time`, `parent_prediction` ...) and return it as stored."""
        answer = self._json("POST", f"api/tasks/{task_id}/annotations/", dict(annotation))
        return dict(answer)

    def update_annotation(self, annotation_id: int, **fields: Any) -> Json:
        """Change an annotation's fields and return it as stored."""
        return dict(self._json("PATCH", f"api/annotations/{annotation_id}/", fields))

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation."""
        self._request("DELETE", f"api/annotations/{annotation_id}/")

    def backends(self, project_id: int) -> list[StudioBackend]:
        """Return a project's labeling backends; Label Studio calls each of them before it answers."""
        answer = self._json("GET", "api/ml", params={"project": project_id}, timeout_s=CONNECT_TIMEOUT_S)
        return [_to_backend(raw) for raw in answer]

    def connect_backend(self, project_id: int, url: str, title: str, *, is_interactive: bool = False) -> int:
        """Add a labeling backend, or reuse the one with this address, and return its id.

        Label Studio calls the backend's /health and /setup meanwhile, and registers `<url>/webhook` for
        all events of the project. Where the project has no `model_version` yet, it becomes the title.
        """
        for backend in self.backends(project_id):
            if backend.url.rstrip("/") == url.rstrip("/"):
                return backend.id
        body = {
            "project": project_id,
            "url": url.rstrip("/"),
            "title": title,
            "is_interactive": is_interactive,
        }
        return int(self._json("POST", "api/ml", body, timeout_s=CONNECT_TIMEOUT_S)["id"])

    def delete_backend(self, project_id: int, backend_id: int) -> None:
        """Remove a labeling backend, and the webhook that Label Studio made for it but would leave."""
        url = str(self._json("GET", f"api/ml/{backend_id}")["url"]).rstrip("/") + "/webhook"
        self._request("DELETE", f"api/ml/{backend_id}")
        for webhook in self.webhooks(project_id):
            if webhook["url"] == url:
                self._request("DELETE", f"api/webhooks/{webhook['id']}/")

    def start_training(self, backend_id: int) -> None:
        """Press "Start Training"; the backend hears of it as the webhook event START_TRAINING."""
        self._request("POST", f"api/ml/{backend_id}/train", body={"use_ground_truth": False})

    def webhooks(self, project_id: int) -> list[Json]:
        """Return a project's webhooks as Label Studio says them."""
        return list(self._json("GET", "api/webhooks/", params={"project": project_id}))

    @functools.cached_property
    def _sdk(self) -> LabelStudioBase:
        from label_studio_sdk.base_client import LabelStudioBase

        return LabelStudioBase(base_url=self.url, api_key=self._api_key, timeout=self._timeout_s)

    def _json_or_none(self, path: str, *, params: Mapping[str, Any] | None = None) -> Json | None:
        response = self._request("GET", path, params=params, missing_ok=True)
        return None if response.status_code == 404 else dict(response.json())

    def _json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        return self._request(method, path, body=body, params=params, timeout_s=timeout_s).json()

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        from label_studio_sdk.core.api_error import ApiError

        place = f"Label Studio {self.url}, {method} /{path.partition('?')[0]}"
        try:
            # Below the generated methods, for the server's JSON as it is and to spare the pass that walks
            # through every number of a brush region.
            response = self._sdk._client_wrapper.httpx_client.request(
                path,
                method=method,
                params=dict(params) if params else None,
                content=json.dumps(body, separators=(",", ":")).encode() if body is not None else None,
                headers={"Content-Type": "application/json"} if body is not None else None,
                files=dict(files) if files else None,
                request_options={
                    "timeout": timeout_s or self._timeout_s,  # type: ignore[typeddict-unknown-key,unused-ignore]
                    # A POST answered with an error may have been done: asking again could do it twice.
                    "max_retries": 2 if method == "GET" else 0,
                },
            )
        except ApiError as exc:  # from the refresh of a personal access token
            raise refused_error(place, exc.status_code or 401, exc.body) from exc
        except httpx.HTTPError as exc:
            raise unreachable_error(place, exc) from exc
        if response.is_error and not (missing_ok and response.status_code == 404):
            raise refused_error(place, response.status_code, response.text)
        if "json" not in response.headers.get("content-type", "json"):
            raise StudioError(
                place,
                expected="JSON",
                got=f"status {response.status_code}, {response.headers.get('content-type')}",
                remedy="check that LABEL_STUDIO_URL is the address of Label Studio itself, without a path",
            )
        return response


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


def _page_params(project_id: int, after_id: int, only_unlabelled: bool) -> Json:
    items = [_id_filter("greater", after_id)]
    if only_unlabelled:
        items.append(
            {"filter": "filter:tasks:completed_at", "operator": "empty", "type": "Datetime", "value": True}
        )
    return _query_params(project_id, items)


def _id_filter(operator: str, value: int) -> Json:
    return {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": value}


def _query_params(project_id: int, items: Sequence[Json]) -> Json:
    query = {"filters": {"conjunction": "and", "items": list(items)}, "ordering": ["tasks:id"]}
    return {
        "project": project_id,
        "fields": "task_only",
        "include": TASK_FIELDS,
        "page_size": PAGE_SIZE,
        "query": json.dumps(query, separators=(",", ":")),
    }


def _to_project(raw: Json) -> StudioProject:
    return StudioProject(
        id=int(raw["id"]),
        title=raw.get("title") or "",
        label_config=raw.get("label_config") or "",
        model_version=raw.get("model_version") or "",
        sampling=raw.get("sampling") or "",
        task_count=int(raw.get("task_number") or 0),
        raw=raw,
    )


def _to_task(raw: Json) -> StudioTask:
    return StudioTask(
        id=int(raw["id"]),
        project_id=int(raw["project"]),
        data=raw["data"],
        is_labeled=bool(raw["is_labeled"]),
        total_predictions=int(raw.get("total_predictions") or 0),
        updated_at=str(raw["updated_at"]),
    )


def _to_backend(raw: Json) -> StudioBackend:
    return StudioBackend(
        id=int(raw["id"]),
        url=raw["url"],
        title=raw.get("title") or "",
        model_version=raw.get("model_version") or "",
        state=raw.get("state") or "",
    )
