"""Which images judge and which are learnt from, decided once by their content; and what was judged.

`learning/data/holdout_choice.py` says how sides are chosen; here they are kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from maskloop.similarity import HASH_BYTES, ImageHash, hash_distances
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import (
    AnnotationRow,
    ImageHashRow,
    ImageSideRow,
    JudgementRow,
    MasksRow,
    ProjectRow,
    VersionRow,
)

__all__ = ["HOLDOUT", "NEITHER", "TRAIN", "HoldoutRepository", "Judgement", "content_position", "is_blind"]

TRAIN, HOLDOUT = "train", "holdout"
NEITHER = "neither"  # resembles images of both sides: it is neither learnt nor judged by
KEYS_AT_ONCE = 500
MAX_RACES = 5  # lost to other workers in a row


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One challenger that was judged on a project's holdout."""

    training_id: int
    project_id: int
    champion: str  # tag of the version that it was compared with
    challenger: str  # tag
    images: int  # that judged
    required: float  # confidence that was required of it, 0..1
    confidence: float | None  # that it had; None where the two could not be compared
    promote: bool  # whether it passed
    at: datetime = field(default_factory=now)


@dataclass
class _Known:
    """The sides of a project's images, as far as this process has read them."""

    last: int = 0  # newest row
    sides: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)  # of the hashes
    hashes_nb: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, HASH_BYTES), np.uint8))

    def near(self, one: ImageHash, distance: float) -> set[str]:
        """Return the sides of the images that a hash is near to."""
        rows = np.flatnonzero(hash_distances(one, self.hashes_nb) <= distance)
        return {self.sides[self.keys[row]] for row in rows}


def content_position(image_key: str) -> float:
    """Return a place in 0..1 that depends on an image's content alone, uniform over images.

    Args:
        image_key: SHA-256 of the image file, as hexadecimal digits.
    """
    digest = hashlib.sha256(f"holdout/{image_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_blind(image_key: str, blind_below: float) -> bool:
    """Return whether an image is never pre-annotated: the first images of the holdout by content.

    Args:
        image_key: SHA-256 of the image file.
        blind_below: from `Settings.blind_below`.
    """
    return blind_below > 0 and content_position(image_key) < blind_below


class HoldoutRepository:
    """Sides of images, and judgements; a side is never changed once a version has learnt or was judged."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._known: dict[int, _Known] = {}

    def add_hash(self, image_key: str, image_hash: ImageHash) -> None:
        """Store an image's perceptual hash; one that is there stays."""
        try:
            with self._sessions.write() as session:
                if session.get(ImageHashRow, image_key) is not None:
                    return
                session.add(ImageHashRow(image_key=image_key, hash=image_hash.tobytes()))
                # As new rows, so that every process reads them again, with the hash.
                query = select(ImageSideRow.project_id, ImageSideRow.side).where(
                    ImageSideRow.image_key == image_key
                )
                for project_id, side in session.execute(query.order_by(ImageSideRow.project_id)).all():
                    _replace(session, project_id, {image_key: side})
        except IntegrityError:  # another worker stored it at the same moment
            return

    def hashes(self, image_keys: Iterable[str]) -> dict[str, ImageHash]:
        """Return the perceptual hashes of images; those that have none are left out."""
        wanted = list(dict.fromkeys(image_keys))
        found: dict[str, ImageHash] = {}
        with self._sessions.read() as session:
            for start in range(0, len(wanted), KEYS_AT_ONCE):
                query = select(ImageHashRow.image_key, ImageHashRow.hash).where(
                    ImageHashRow.image_key.in_(wanted[start : start + KEYS_AT_ONCE])
                )
                found |= {key: np.frombuffer(value, np.uint8) for key, value in session.execute(query)}
        return found

    def sides(self, project_id: int) -> dict[str, str]:
        """Return image key -> side of all of a project's images that have one."""
        query = select(ImageSideRow.image_key, ImageSideRow.side).where(ImageSideRow.project_id == project_id)
        with self._sessions.read() as session:
            return {key: value for key, value in session.execute(query)}

    def place(
        self, project_id: int, image_keys: Iterable[str], *, fraction: float, near_distance: float
    ) -> str:
        """Return the side of the images of one task; images that are new get one, for good.

        A new image is on the side of the images that it resembles. Where it resembles none, its content
        decides: the same image is on the same side in every project and on every machine.

        Args:
            project_id: Label Studio's number.
            image_keys: SHA-256 of the images of one task.
            fraction: share of the images that judge, 0..1.
            near_distance: share of the bits of the perceptual hash up to which two images are the same.

        Returns:
            train, holdout, or neither where the images resemble images of both sides.
        """
        keys = sorted(set(image_keys))
        for _ in range(MAX_RACES):
            try:
                return self._place(project_id, keys, fraction, near_distance)
            except IntegrityError:  # another worker placed one of them at the same moment
                continue
        return self._place(project_id, keys, fraction, near_distance)

    def _place(self, project_id: int, keys: Sequence[str], fraction: float, near: float) -> str:
        hashes = self.hashes(keys)
        with self._lock, self._sessions.write() as session:
            session.get(ProjectRow, project_id, with_for_update=True)  # one worker places at a time
            known = self._read_known(session, project_id)
            new = [key for key in keys if key not in known.sides]
            alike = {known.sides[key] for key in keys if key in known.sides}
            for key in new:
                alike |= known.near(hashes[key], near) if key in hashes else set()
            side = _common_side(alike)
            if side is None:
                side = HOLDOUT if keys and content_position(keys[0]) < fraction else TRAIN
            session.add_all(_row(project_id, key, side) for key in new)
            return side

    def move(self, project_id: int, sides: Mapping[str, str]) -> None:
        """Give images, and the annotations on them, another side; for those that no version has learnt from.

        Args:
            project_id: Label Studio's number.
            sides: image key -> side.
        """
        with self._sessions.write() as session:
            _replace(session, project_id, sides)
            for side in sorted(set(sides.values())):
                keys = [key for key, its_side in sides.items() if its_side == side]
                for start in range(0, len(keys), KEYS_AT_ONCE):
                    versions = select(MasksRow.version_id).where(
                        MasksRow.image_key.in_(keys[start : start + KEYS_AT_ONCE])
                    )
                    session.execute(
                        update(AnnotationRow)
                        .where(AnnotationRow.project_id == project_id, AnnotationRow.version_id.in_(versions))
                        .values(split=side)
                    )

    def first_versions(self, project_id: int) -> dict[str, int]:
        """Return image key -> the number of the first annotation version that is of it."""
        query = (
            select(MasksRow.image_key, func.min(MasksRow.version_id))
            .join(VersionRow, VersionRow.version_id == MasksRow.version_id)
            .where(VersionRow.project_id == project_id)
            .group_by(MasksRow.image_key)
        )
        with self._sessions.read() as session:
            return {key: value for key, value in session.execute(query)}

    def add_judgement(self, judgement: Judgement) -> None:
        """Store that a challenger was judged; one of the same training that is there stays."""
        values = {one.name: getattr(judgement, one.name) for one in fields(judgement)}
        with self._sessions.write() as session:
            if session.get(JudgementRow, judgement.training_id) is None:
                session.add(JudgementRow(**values))

    def judgements(self, project_id: int) -> tuple[Judgement, ...]:
        """Return a project's judgements, oldest first."""
        query = select(JudgementRow).where(JudgementRow.project_id == project_id)
        with self._sessions.read() as session:
            rows = session.scalars(query.order_by(JudgementRow.training_id)).all()
            return tuple(
                Judgement(**{one.name: getattr(row, one.name) for one in fields(Judgement)}) for row in rows
            )

    def _read_known(self, session: Session, project_id: int) -> _Known:
        """Return the sides of a project's images; only rows that are new to this process are read."""
        known = self._known.setdefault(project_id, _Known())
        query = (
            select(ImageSideRow.side_id, ImageSideRow.image_key, ImageSideRow.side, ImageHashRow.hash)
            .outerjoin(ImageHashRow, ImageHashRow.image_key == ImageSideRow.image_key)
            .where(ImageSideRow.project_id == project_id, ImageSideRow.side_id > known.last)
            .order_by(ImageSideRow.side_id)
        )
        added: list[ImageHash] = []
        for number, key, side, stored in session.execute(query):
            known.last = number
            known.sides[key] = side
            if stored is not None:
                known.keys.append(key)
                added.append(np.frombuffer(stored, np.uint8))
        if added:
            known.hashes_nb = np.concatenate([known.hashes_nb, np.stack(added)])
        return known


def _common_side(sides: Collection[str]) -> str | None:
    """Return the side of images that resemble images of these sides; None where they resemble none."""
    decided = set(sides) - {NEITHER}
    if len(decided) == 1 and len(sides) == 1:
        return decided.pop()
    return NEITHER if sides else None


def _replace(session: Session, project_id: int, sides: Mapping[str, str]) -> None:
    # Rows of a project appear in the order of their numbers: processes read only those that are newer.
    session.get(ProjectRow, project_id, with_for_update=True)
    keys = list(sides)
    for start in range(0, len(keys), KEYS_AT_ONCE):
        session.execute(
            delete(ImageSideRow).where(
                ImageSideRow.project_id == project_id,
                ImageSideRow.image_key.in_(keys[start : start + KEYS_AT_ONCE]),
            )
        )
    session.add_all(_row(project_id, key, side) for key, side in sides.items())


def _row(project_id: int, image_key: str, side: str) -> ImageSideRow:
    return ImageSideRow(project_id=project_id, image_key=image_key, side=side, placed_at=now())
