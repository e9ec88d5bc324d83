"""Whether a project's trainings learn from unlabelled images: the rule, its figures, how long they hold.

`pool_check` trains the folds that the figures are from; `unlabelled_pool` asks for them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from maskloop.types import Correction, SegmentationTask

__all__ = ["FoldScores", "PoolSubject", "PoolVerdict", "judge_folds"]

# The order of the views alone moves the score of one training by about this much (docs/few-images.md). A mean
# over three folds of differences between two such trainings moves by .02 x sqrt(2 / 3) = .016.
MARGIN = 0.02
LEAST_FOLDS = 2  # one says nothing of how far chance moves it
GROWTH = 1.5  # of the annotated images, up to which a verdict holds


@dataclass(frozen=True, kw_only=True)
class FoldScores:
    """One fold: the gate's score (mean of AP50, PQ and IoU, 0..1) on its images of both ways to train."""

    images: int  # that judged; copies count once
    without: float
    with_pool: float
    pool_images: int  # unlabelled images with pseudo-labels that the second way learnt from
    seconds: float  # that both trainings took; what a kill cut off is not counted

    @property
    def gain(self) -> float:
        """How much higher the score is with the pool."""
        return self.with_pool - self.without


@dataclass(frozen=True, kw_only=True)
class PoolSubject:
    """What a verdict is about."""

    base: str  # the model that the project's first version was made from
    classes: tuple[str, ...]  # of the next version
    task: str
    wanted: int  # unlabelled images that the settings ask for
    images: int  # annotated images outside the holdout

    @classmethod
    def of(
        cls,
        train: Iterable[Correction],
        *,
        base: str,
        classes: Sequence[str],
        task: SegmentationTask,
        wanted: int,
    ) -> Self:
        """Return the subject of a training.

        Args:
            train: its corrections outside the holdout.
            base: name of the base model, as model cards have it.
            classes: of the next version.
            task: of the project.
            wanted: unlabelled images that the settings ask for.
        """
        images = len({one.image_key for one in train})
        return cls(base=base, classes=tuple(classes), task=str(task), wanted=wanted, images=images)


@dataclass(frozen=True, kw_only=True)
class PoolVerdict:
    """What the project's own cross-validation says of unlabelled images."""

    use: bool
    gain: float  # of score with them: mean over the folds
    needed: float  # what it has to exceed
    folds: tuple[FoldScores, ...]
    start: str  # tag of the version that all trainings of the folds started from
    teacher: str  # whose pseudo-labels they were: the tag of a version, or "each fold's own"
    subject: PoolSubject
    training: str  # key of the training that found it out

    @property
    def seconds(self) -> float:
        """How long its trainings took."""
        return sum(fold.seconds for fold in self.folds)

    def holds_for(self, subject: PoolSubject) -> bool:
        """Return whether it still says something: same base, classes, task and pool, about as many images."""
        mine = self.subject
        same = (mine.base, mine.task, mine.wanted) == (subject.base, subject.task, subject.wanted)
        known = same and set(mine.classes) == set(subject.classes)
        return known and mine.images / GROWTH < subject.images < mine.images * GROWTH

    def in_words(self) -> str:
        """Return the verdict and its figures as one sentence."""
        each = ", ".join(f"{fold.gain:+.3f}" for fold in self.folds)
        judged = sum(fold.images for fold in self.folds)
        verb = "gain" if self.use else "do not gain enough"
        return (
            f"unlabelled images {verb} in the project's cross-validation: {self.gain:+.3f} of score on "
            f"{judged} annotated images in {len(self.folds)} folds ({each}), more than {self.needed:.3f} is "
            "needed; "
            f"started from {self.start}, pseudo-labels by {self.teacher}, measured by {self.training} with "
            f"{self.subject.images} annotated images"
        )

    def as_json(self) -> dict[str, object]:
        """Return it as plain values; kept in the outcome of a training."""
        values = asdict(self) | {"folds": [asdict(fold) for fold in self.folds]}
        return values | {"seconds": round(self.seconds, 1), "text": self.in_words()}

    @classmethod
    def from_json(cls, values: object) -> Self | None:
        """Return what `as_json` returned; None where it is something else."""
        if not isinstance(values, Mapping):
            return None
        try:
            return cls(
                use=bool(values["use"]),
                gain=float(values["gain"]),
                needed=float(values["needed"]),
                folds=tuple(FoldScores(**fold) for fold in values["folds"]),
                start=str(values["start"]),
                teacher=str(values["teacher"]),
                subject=_subject(values["subject"]),
                training=str(values["training"]),
            )
        except (KeyError, TypeError, ValueError):
            return None


def judge_folds(folds: Sequence[FoldScores]) -> tuple[bool, float, float]:
    """Return whether the pool is used, its mean gain of score, and what the gain has to exceed.

    It is used where the mean gain over the folds is larger than what the order of the views alone makes
    (.02), and than one standard error of the folds' gains: of two ways that cannot be told apart by as much
    the cheaper one is taken. Two or three folds cannot show more: a t-test with a confidence of 90 % would
    ask for 1.9 standard errors. What is used wrongly costs time, and the gate still judges the version.

    Args:
        folds: at least two.

    Raises:
        ValueError: fewer.

    Source:
        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3: the one standard error
        rule, which chooses the simpler model.
    """
    if len(folds) < LEAST_FOLDS:
        raise ValueError(f"judge_folds: expected at least {LEAST_FOLDS} folds, got {len(folds)}")
    gains = [fold.gain for fold in folds]
    gain = statistics.fmean(gains)
    needed = max(MARGIN, statistics.stdev(gains) / math.sqrt(len(gains)))
    return gain > needed, gain, needed


def _subject(values: Mapping[str, Any]) -> PoolSubject:
    return PoolSubject(
        base=str(values["base"]),
        classes=tuple(str(name) for name in values["classes"]),
        task=str(values["task"]),
        wanted=int(values["wanted"]),
        images=int(values["images"]),
    )
