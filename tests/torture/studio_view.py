"""What Label Studio says, read through its API without the code under test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

PAGE_SIZE = 100
DAMAGED = "damaged"  # how the numbers of regions begin that nobody can read


@dataclass(frozen=True, kw_only=True)
class Said:
    """One annotation, as either side has it."""

    annotation_id: int
    task_id: int
    updated_at: datetime
    state: str  # submitted or skipped
    result: str  # the regions, as canonical JSON

    @property
    def is_readable(self) -> bool:
        """Whether none of its regions was damaged when it was saved."""
        return f'"id":"{DAMAGED}' not in self.result

    @property
    def pages(self) -> frozenset[int]:
        """The images of the task, from 0, that its regions are on."""
        return frozenset(int(region.get("item_index") or 0) for region in json.loads(self.result))


@dataclass(frozen=True, kw_only=True)
class StudioView:
    """A project, as Label Studio has it."""

    said: Mapping[int, Said]  # by annotation
    predictions: Mapping[int, Sequence[str]]  # task -> the versions of its predictions, one entry each
    unlabelled: frozenset[int]  # tasks without a submitted or skipped annotation
    shown_version: str  # of predictions
    pages: Mapping[int, Sequence[str]] = field(default_factory=dict)  # task -> the addresses of its images
    in_hand: frozenset[int] = frozenset()  # tasks with a draft: a renewal leaves them alone


class StudioApi:
    """Label Studio's API, for what the client under test has no method for; for one thread."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60.0, trust_env=False
        )

    def __enter__(self) -> StudioApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        """Return the answer's JSON; None where it has none.

        Raises:
            httpx.HTTPError: no answer, or an error.
        """
        answer = self._http.request(method, path, json=body, params=params)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def act(self, project_id: int, action: str, task_ids: Sequence[int]) -> None:
        """Do one of the Data Manager's actions on tasks."""
        chosen = {"selectedItems": {"all": False, "included": list(task_ids)}}
        self.call("POST", "/api/dm/actions", chosen, id=action, project=project_id)

    def tasks(self, project_id: int) -> Iterator[dict[str, Any]]:
        """Yield a project's tasks with all annotations, skipped ones too, and all predictions."""
        read = 0
        for page in itertools.count(1):
            answer = self.call(
                "GET", "/api/tasks", project=project_id, page=page, page_size=PAGE_SIZE, fields="all"
            )
            yield from answer["tasks"]
            read += len(answer["tasks"])
            if read >= answer["total"] or not answer["tasks"]:
                return  # a page after the last one is a 404

    def view(self, project_id: int) -> StudioView:
        """Return all that is to be compared."""
        said: dict[int, Said] = {}
        predictions: dict[int, list[str]] = {}
        pages: dict[int, list[str]] = {}
        unlabelled, in_hand = set(), set()
        for task in self.tasks(project_id):
            pages[task["id"]] = list(task["data"]["pages"])
            predictions[task["id"]] = [str(row["model_version"]) for row in task["predictions"]]
            if not task["is_labeled"] and not task["annotations"]:
                unlabelled.add(int(task["id"]))
            if task["draft_exists"]:
                in_hand.add(int(task["id"]))
            for row in task["annotations"]:
                # The list cuts long regions short; the annotation itself has them whole.
                whole = self.call("GET", f"/api/annotations/{row['id']}/")
                said[whole["id"]] = Said(
                    annotation_id=whole["id"],
                    task_id=task["id"],
                    updated_at=datetime.fromisoformat(whole["updated_at"]),
                    state="skipped" if whole["was_cancelled"] else "submitted",
                    result=canonical(whole["result"]),
                )
        shown = str(self.call("GET", f"/api/projects/{project_id}/")["model_version"] or "")
        return StudioView(
            said=said,
            predictions=predictions,
            unlabelled=frozenset(unlabelled),
            shown_version=shown,
            pages=pages,
            in_hand=frozenset(in_hand),
        )


def canonical(result: object) -> str:
    """Return regions as JSON that is the same for the same regions."""
    return json.dumps(result, sort_keys=True, separators=(",", ":"))
