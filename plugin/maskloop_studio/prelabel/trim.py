"""Takes out of stored predictions what annotators' corrections have shown to be not worth drawing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from maskloop.log import log_action
from maskloop_studio.prelabel.push import PushTarget, patiently

if TYPE_CHECKING:
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["kept_regions", "trim_stored"]

logger = logging.getLogger(__name__)
PAGE_TASKS = 100


def trim_stored(
    target: PushTarget, floors: Mapping[str, float], *, connections: int, check: Callable[[], None]
) -> int:
    """Remove regions under the floors from the version's stored predictions; return how many changed.

    Tasks with an annotation or a draft are left alone. Killed anywhere, the next call does the rest.

    Args:
        target: the version and the project.
        floors: label -> least displayed score.
        connections: requests that go out at once.
        check: called before each page; what it raises ends this.

    Raises:
        StudioError: Label Studio does not answer.
    """
    if not floors:
        return 0
    pushes, client = target.store.pushes, target.client
    trimmed = after_id = 0
    with ThreadPoolExecutor(connections) as pool:
        while page := pushes.page(target.project_id, target.tag, after_id=after_id, limit=PAGE_TASKS):
            check()
            stands = patiently(functools.partial(client.task_stands, target.project_id, list(page)))
            numbers = [
                number
                for task_id, number in page.items()
                if number is not None
                and task_id in stands
                and not (stands[task_id].annotated or stands[task_id].has_draft)
            ]
            trimmed += sum(pool.map(functools.partial(_trim, floors=floors, client=client), numbers))
            after_id = max(page)
    if trimmed:
        log_action(
            logger,
            "predictions_trimmed",
            project_id=target.project_id,
            model_version=target.tag,
            predictions=trimmed,
            floors=", ".join(f"{label}: {floor:.2f}" for label, floor in sorted(floors.items())),
        )
    return trimmed


def kept_regions(
    regions: Sequence[Mapping[str, Any]], floors: Mapping[str, float]
) -> list[Mapping[str, Any]]:
    """Return the regions of a `result` whose score reaches the floor of their label.

    All items of a region share its id; the one that has the label decides.
    """
    gone = {
        region.get("id")
        for region in regions
        for label in _labels(region)
        if float(region.get("score") or 0.0) < floors.get(label, 0.0)
    }
    return [region for region in regions if region.get("id") not in gone]


def _trim(number: int, *, floors: Mapping[str, float], client: StudioClient) -> bool:
    stored = patiently(functools.partial(client.prediction, number))
    regions = (stored or {}).get("result") or []
    kept = kept_regions(regions, floors)
    if len(kept) == len(regions):
        return False
    return patiently(functools.partial(client.update_prediction, number, result=kept))


def _labels(region: Mapping[str, Any]) -> list[str]:
    value = region.get("value")
    if not isinstance(value, Mapping):
        return []
    names = [found for key, found in value.items() if key.endswith("labels") and isinstance(found, list)]
    return [str(name) for found in names for name in found]
