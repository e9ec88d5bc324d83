"""A Label Studio in memory: tasks and annotations with the time of their last change, for the reconciler."""

import itertools
import operator
from datetime import UTC, datetime, timedelta

from maskloop_studio.labelstudio.client import StudioClient
from maskloop_studio.labelstudio.models import AnnotationStamp, StampedTask, StudioUser, TaskPage, to_project

__all__ = ["NOON", "PROJECT_ID", "StampedStudio"]

PROJECT_ID = 7
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)  # the time of the first change
OPERATORS = {
    "equal": operator.eq,
    "greater": operator.gt,
    "greater_or_equal": operator.ge,
}


class StampedStudio(StudioClient):
    """Tasks and annotations as Label Studio keeps them: a task's time moves with its annotations."""

    def __init__(self, page_size=3):
        super().__init__("http://studio", "token")
        self.page_size = page_size
        self.clock = NOON
        self.tasks = {}  # number -> [updated_at, {annotation: (updated_at, skipped)}]
        self.numbers = itertools.count(1)
        self.requests = 0
        self.gone = False
        self.orphans = []  # is it skipped? of annotations whose task is deleted: counted, listed nowhere
        self.hooks = []  # webhooks, as Label Studio's API gives them

    def tick(self, seconds=1.0):
        self.clock += timedelta(seconds=seconds)
        return self.clock

    def add_task(self):
        number = next(self.numbers)
        self.tasks[number] = [self.tick(), {}]
        return number

    def annotate(self, task_id, *, skipped=False, number=None):
        number = number or next(self.numbers)
        self.tasks[task_id][1][number] = (self.tick(0.001), skipped)
        self.tasks[task_id][0] = self.tick(0.001)
        return number

    def delete(self, task_id, number):
        del self.tasks[task_id][1][number]
        self.tasks[task_id][0] = self.tick()

    def find_project(self, project_id):
        counts = [skipped for _, said in self.tasks.values() for _, skipped in said.values()]
        counts += self.orphans
        raw = {
            "id": project_id,
            "label_config": "<View/>",
            "total_annotations_number": counts.count(False),
            "skipped_annotations_number": counts.count(True),
        }
        return None if self.gone else to_project(raw)

    def whoami(self):
        return StudioUser(id=1, email="a@example.org")

    def webhooks(self, project_id):
        return self.hooks

    def update_webhook(self, webhook_id, **fields):
        self.hooks[0].update(fields)

    def project(self, project_id):
        return self.find_project(project_id)

    def annotation(self, annotation_id):
        for task_id, (_, said) in self.tasks.items():
            if annotation_id in said:
                at, skipped = said[annotation_id]
                return {
                    "id": annotation_id,
                    "project": PROJECT_ID,
                    "task": task_id,
                    "updated_at": at.isoformat(),
                    "was_cancelled": skipped,
                }
        return None

    def state(self):
        return {
            number: (task_id, at, skipped)
            for task_id, (_, said) in self.tasks.items()
            for number, (at, skipped) in said.items()
        }

    def _stamps(self, project_id, filters, ordering):
        self.requests += 1
        fit = [task_id for task_id in self.tasks if self._fits(task_id, filters)]
        fit.sort(key=lambda task_id: (self.tasks[task_id][0], task_id) if "updated" in ordering else task_id)
        page = tuple(
            StampedTask(
                id=task_id,
                updated_at=self.tasks[task_id][0],
                annotations=tuple(
                    AnnotationStamp(id=number, updated_at=at, skipped=skipped)
                    for number, (at, skipped) in self.tasks[task_id][1].items()
                ),
            )
            for task_id in fit[: self.page_size]
        )
        return TaskPage(tasks=page, total=len(fit), at=self.clock.replace(microsecond=0))

    def _fits(self, task_id, filters):
        lines = [
            self._holds(task_id, item)
            and ("child_filter" not in item or self._holds(task_id, item["child_filter"]))
            for item in filters["items"]
        ]
        return all(lines) if filters["conjunction"] == "and" else any(lines)

    def _holds(self, task_id, item):
        updated_at, said = self.tasks[task_id]
        skipped = sum(skipped for _, skipped in said.values())
        values = {
            "id": task_id,
            "updated_at": updated_at,
            "total_annotations": len(said) - skipped,
            "cancelled_annotations": skipped,
        }
        wanted = item["value"]
        if item["type"] == "Datetime":
            wanted = datetime.strptime(wanted, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        return OPERATORS[item["operator"]](values[item["filter"].removeprefix("filter:tasks:")], wanted)
