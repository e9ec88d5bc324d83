"""Which segments of a version are drawn for annotators, and what their scores mean; saved with the version.

`showing_search` finds it on the holdout.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from maskloop.files import write_whole
from maskloop.learning.evaluation.calibration import ScoreCalibration
from maskloop.log import log_action
from maskloop.types import Prediction

__all__ = ["SHOWING_FILE", "Showing", "read_showing", "shown_segments", "write_showing"]

logger = logging.getLogger(__name__)
SHOWING_FILE = "showing.json"  # in a version's folder
HIDDEN = 2.0  # as a floor: no score reaches it


@dataclass(frozen=True, kw_only=True)
class Showing:
    """What a version's segments on the holdout say about drawing them for annotators."""

    # class -> least score (as the model gives it, 0..1) of the segments that are drawn; above 1: none is
    floors: Mapping[str, float] = field(default_factory=dict, hash=False)
    calibration: ScoreCalibration | None = None  # None: too few segments to fit one
    images: int = 0  # of the holdout
    objects: int = 0  # on them
    found: int = 0  # segments that the model finds there
    drawn: int = 0  # of these: with a score from the floor on
    work_saved: float | None = None  # on the holdout, of what is drawn; None: there is nothing to draw
    work_saved_by_all: float | None = None  # the same if all were drawn
    # of each image: the share of the drawn and missing regions that has to be corrected, 0..1
    holdout_shares: tuple[float, ...] = ()

    @property
    def hidden(self) -> tuple[str, ...]:
        """Classes of which no segment is drawn."""
        return tuple(sorted(label for label, floor in self.floors.items() if floor > 1))

    @property
    def draws_nothing(self) -> bool:
        """Whether no class is drawn."""
        return bool(self.floors) and len(self.hidden) == len(self.floors)

    def floor_for(self, label: str) -> float:
        """Return the least score of a drawn segment with this label, as the model gives it."""
        return self.floors.get(label, 0.0)

    def displayed(self, score: float) -> float:
        """Return the score that is displayed for a score of the model."""
        return score if self.calibration is None else self.calibration.apply(score)

    def as_json(self) -> dict[str, object]:
        """Return it as plain values, with what is hidden."""
        return dataclasses.asdict(self) | {"hidden": list(self.hidden), "draws_nothing": self.draws_nothing}

    def in_words(self) -> str:
        """Return it as a sentence for people."""
        saved = "" if self.work_saved_by_all is None else f" (all would save {self.work_saved_by_all:.0%})"
        unseen = f"{self.images} images that taught it nothing, with {self.objects} objects"
        if self.draws_nothing:
            if not self.images:
                return "draws nothing: no annotated image is left to judge by"
            if not self.found:
                return f"draws nothing: finds nothing on {unseen}"
            return f"draws nothing: {self.found} segments on {unseen} are not worth correcting{saved}"
        kept = f"draws {self.drawn} of {self.found} segments on {unseen}"
        worth = "" if self.work_saved is None else f", which saves {self.work_saved:.0%} of the work{saved}"
        hidden = f"; never {', '.join(self.hidden)}" if self.hidden else ""
        return f"{kept}{worth}{hidden}"


def shown_segments(prediction: Prediction, floors: Mapping[str, float]) -> Prediction:
    """Return a prediction without the segments whose score is below the floor of their label."""
    kept = tuple(one for one in prediction.segments if one.score >= floors.get(one.label, 0.0))
    if len(kept) == len(prediction.segments):
        return prediction
    return dataclasses.replace(prediction, segments=kept)


def write_showing(folder: Path, showing: Showing) -> None:
    """Write it into a version's folder."""
    write_whole(folder / SHOWING_FILE, json.dumps(showing.as_json(), indent=1))


def read_showing(folder: str | Path) -> Showing | None:
    """Return what is saved with a version; None for checkpoints without it, such as those of older versions.

    Where the file cannot be read, the log says so and the version draws what its thresholds let through.
    """
    return _read(str(folder))


@functools.lru_cache(maxsize=64)  # a version's folder never changes
def _read(folder: str) -> Showing | None:
    path = Path(folder) / SHOWING_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        calibration = values["calibration"]
        names = {one.name for one in dataclasses.fields(Showing)} - {
            "calibration",
            "floors",
            "holdout_shares",
        }
        return Showing(
            floors={str(label): float(floor) for label, floor in values["floors"].items()},
            calibration=ScoreCalibration(**calibration) if calibration else None,
            **{name: value for name, value in values.items() if name in names},
            holdout_shares=tuple(float(share) for share in values.get("holdout_shares") or ()),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        log_action(logger, "showing_unreadable", level=logging.WARNING, place=str(path), error=exc)
        return None
