"""Who drew what: how annotators are named, and the images that several of them drew on."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskloop.curation.agreement.pairwise import DrawnImage
    from maskloop.types import Correction
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["annotator_names", "drawn_by_several", "seconds_a_region", "studio_names"]


NO_NAMES: Mapping[int, str] = MappingProxyType({})


def annotator_names(
    annotators: Iterable[int | None], *, hidden: bool, known: Mapping[int, str] = NO_NAMES
) -> dict[int, str]:
    """Return user number -> how it is shown: by its name or number, or by a letter where these are hidden.

    Args:
        annotators: user numbers.
        hidden: letters only.
        known: number -> name in Label Studio; of two with one name the number is shown as well.
    """
    users = sorted({user for user in annotators if user is not None})
    if hidden:
        return {user: f"annotator {_letters(number)}" for number, user in enumerate(users)}
    often = Counter(known[user] for user in users if user in known)
    return {
        user: f"user {user}"
        if user not in known
        else (known[user] if often[known[user]] == 1 else f"{known[user]} ({user})")
        for user in users
    }


def studio_names(client: StudioClient) -> dict[int, str]:
    """Return user number -> name in Label Studio, else e-mail address, without characters that do not print.

    Raises:
        StudioError: Label Studio does not answer.
    """
    return {one.id: _printable(one.name) or _printable(one.email) for one in client.users()}


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _letters(number: int) -> str:
    """Return A to Z, then AA, AB ..."""
    letters = ""
    while number >= 0:
        letters = chr(ord("A") + number % 26) + letters
        number = number // 26 - 1
    return letters


def drawn_by_several(corrections: Iterable[Correction]) -> list[DrawnImage]:
    """Return the images that two annotators or more drew on; of one person the newest annotation counts."""
    from maskloop.curation.agreement.pairwise import DrawnImage

    images: defaultdict[tuple[int, str, int], dict[int, Correction]] = defaultdict(dict)
    for one in sorted(corrections, key=lambda each: each.updated_at):
        if one.annotator is not None and not one.boxes:
            images[one.task_id, one.view, one.image_index][one.annotator] = one
    return [
        DrawnImage(
            size_hw=next(iter(of_user.values())).size_hw,
            regions={user: one.segments for user, one in of_user.items()},
        )
        for of_user in images.values()
        if len(of_user) > 1 and len({one.size_hw for one in of_user.values()}) == 1
    ]


def seconds_a_region(corrections: Iterable[Correction]) -> dict[int, float]:
    """Return annotator -> median over annotations of lead time a region."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for one in corrections:
        if one.annotator is not None and one.lead_time_s is not None and one.segments:
            times[one.annotator].append(one.lead_time_s / len(one.segments))
    return {user: statistics.median(some) for user, some in sorted(times.items())}
