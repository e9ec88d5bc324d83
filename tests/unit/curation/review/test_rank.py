import dataclasses

import numpy as np
import pytest
from tests.unit.curation.review.conftest import LABELS, SIZE_HW, evidence_of, rectangle, scene

from maskloop.curation.review import error_classifier
from maskloop.curation.review.error_classifier import CLEAN, Lesson
from maskloop.curation.review.rank import rank
from maskloop.curation.review.suspicion import ReviewImage, SuspicionKind
from maskloop.types import Segment

K = SuspicionKind


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough where the evidence is plain, and several times as fast."""
    monkeypatch.setattr(error_classifier, "TREES", 30)


def _other(label: str) -> str:
    return LABELS[1 - LABELS.index(label)]


def _half(segment: Segment, first: bool) -> Segment:
    middle = segment.mask_hw.shape[1] // 2
    mask_hw = segment.mask_hw[:, :middle] if first else segment.mask_hw[:, middle:]
    top, left = segment.offset_yx
    return Segment(
        mask_hw=mask_hw.copy(), offset_yx=(top, left + (0 if first else middle)), label=segment.label
    )


def _spoilt(kind: SuspicionKind) -> list[Segment]:
    drawn = scene(0)
    if kind is K.OVERLOOKED:
        return drawn[1:]
    if kind is K.SPURIOUS:
        return [*drawn, rectangle(27, 27, 6, 10)]
    if kind is K.WRONG_CLASS:
        return [dataclasses.replace(drawn[0], label=_other(drawn[0].label)), *drawn[1:]]
    if kind is K.SPLIT:
        return [_half(drawn[0], True), _half(drawn[0], False), *drawn[1:]]
    if kind is K.DUPLICATE:
        return [drawn[0], *drawn]
    mask_hw = np.ones((drawn[0].mask_hw.shape[0] + 7, drawn[0].mask_hw.shape[1] + 5), np.bool_)
    return [dataclasses.replace(drawn[0], mask_hw=mask_hw), *drawn[1:]]


@pytest.mark.parametrize("kind", [kind for kind in K if kind is not K.MERGED])
def test_rank_one_error_among_right_regions_comes_first(scenes: list[ReviewImage], kind: SuspicionKind):
    scenes[0] = dataclasses.replace(scenes[0], regions=tuple(_spoilt(kind)))
    first = rank(scenes, labels=LABELS).suspicions[0]
    assert (first.image, first.kind) == ("0", kind)
    assert (first.region is None) == (kind is K.OVERLOOKED)


def test_rank_merged_objects_come_first(scenes: list[ReviewImage]):
    objects = [rectangle(10, 4, 12, 12), rectangle(10, 18, 12, 12), *scene(0)[2:]]
    regions = (rectangle(10, 4, 12, 26), *scene(0)[2:])
    scenes[0] = ReviewImage(key="0", size_hw=SIZE_HW, regions=regions, evidence=(evidence_of(objects),))
    first = rank(scenes, labels=LABELS).suspicions[0]
    assert (first.image, first.region) == ("0", 0)


@pytest.mark.parametrize("kind", [kind for kind in K if kind is not K.MERGED])
def test_rank_of_one_kind_shows_it_alone_by_its_own_probability(
    scenes: list[ReviewImage], kind: SuspicionKind
):
    other = K.BORDER if kind is K.DUPLICATE else K.DUPLICATE
    scenes[0] = dataclasses.replace(scenes[0], regions=tuple(_spoilt(kind)))
    again = scene(1) if other is K.BORDER else [scene(1)[0], *scene(1)]
    scenes[1] = dataclasses.replace(scenes[1], regions=tuple(again))
    ranking = rank(scenes, labels=LABELS, kinds=[kind])
    found = ranking.suspicions
    assert found[0].image == "0"
    assert {one.kind for one in found} == {kind}
    assert {one.region is None for one in found} == {kind is K.OVERLOOKED}
    assert [one.score for one in found] == pytest.approx([one.kinds[kind] for one in found])
    assert len(ranking.features) == len(found)


def test_rank_of_a_kind_that_cannot_be_says_so(scenes: list[ReviewImage]):
    objects = [[dataclasses.replace(one, label="disc") for one in scene(seed)] for seed in range(10)]
    alike = [
        ReviewImage(key=str(n), size_hw=SIZE_HW, regions=tuple(some), evidence=(evidence_of(some, ["disc"]),))
        for n, some in enumerate(objects)
    ]
    ranking = rank(alike, labels=["disc"], kinds=[K.WRONG_CLASS])
    assert (ranking.suspicions, ranking.unjudged) == ((), (K.WRONG_CLASS,))


def test_rank_few_regions_of_one_kind_is_by_its_rule(scenes: list[ReviewImage]):
    spoilt = [*_spoilt(K.WRONG_CLASS), scene(0)[1]]
    ranking = rank(
        [dataclasses.replace(scenes[0], regions=tuple(spoilt))], labels=LABELS, kinds=[K.WRONG_CLASS]
    )
    assert (ranking.calibrated, ranking.suspicions[0].region) == (False, 0)
    assert len(ranking.suspicions) == 5


def test_rank_same_seed_gives_the_same_scores(scenes: list[ReviewImage]):
    once, again = rank(scenes, labels=LABELS, seed=3), rank(scenes, labels=LABELS, seed=3)
    assert [one.score for one in once.suspicions] == [one.score for one in again.suspicions]


def test_rank_few_regions_is_by_rule(scenes: list[ReviewImage]):
    wrong = dataclasses.replace(scenes[0], regions=tuple(_spoilt(K.WRONG_CLASS)))
    ranking = rank([wrong], labels=LABELS)
    assert not ranking.calibrated
    assert ranking.suspicions[0].kind is K.WRONG_CLASS


def test_rank_no_image_is_empty():
    assert rank([], labels=LABELS).suspicions == ()


def test_rank_image_without_regions_shows_what_is_missing(scenes: list[ReviewImage]):
    scenes[0] = dataclasses.replace(scenes[0], regions=())
    found = [one for one in rank(scenes, labels=LABELS).suspicions[:4] if one.region is None]
    assert {one.image for one in found} == {"0"}
    assert len(found) == 4


def test_rank_several_models_agree_on_one_order(scenes: list[ReviewImage]):
    scenes[0] = dataclasses.replace(scenes[0], regions=tuple(_spoilt(K.OVERLOOKED)))
    twice = [dataclasses.replace(one, evidence=one.evidence * 2) for one in scenes]
    assert rank(twice, labels=LABELS).suspicions[0].kind is K.OVERLOOKED


def test_rank_lessons_lower_the_score_of_what_was_right(scenes: list[ReviewImage]):
    scenes[0] = dataclasses.replace(scenes[0], regions=tuple(_spoilt(K.SPURIOUS)))
    before = rank(scenes, labels=LABELS)
    lessons = [Lesson(features=before.features[0], kind=CLEAN, missing=False)] * 20
    after = rank(scenes, labels=LABELS, lessons=lessons)
    same = next(one for one in after.suspicions if (one.image, one.region) == ("0", 4))
    assert same.score < before.suspicions[0].score / 2
