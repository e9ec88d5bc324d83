"""A version's evaluation, image by image; damaged files are named."""

import json

import pytest

from maskloop.errors import RegistryError
from maskloop.learning.registration import EVALUATION_FILE
from maskloop_studio.dashboard.holdout_images import ImageScore, extremes, read_text, score_images


def _write(folder, champion, challenger):
    sides = {
        side: {"metrics": {}, "images": [{"image": key, **numbers} for key, numbers in images.items()]}
        for side, images in (("champion", champion), ("challenger", challenger))
    }
    (folder / EVALUATION_FILE).write_text(json.dumps(sides))


def test_score_images_mean_of_known_parts_and_difference(tmp_path):
    _write(
        tmp_path,
        {"1/2/3": {"ap50": 0.5, "pq": 0.1, "iou": 0.3}, "1/4/5": {}},
        {"1/2/3": {"ap50": None, "pq": 0.4, "iou": 0.6}, "1/4/5": {"pq": 1.0}, "<b>": {"pq": 1.0}},
    )
    first, second = score_images(tmp_path)
    assert (first.key, first.task_id) == ("1/2/3", 2)
    assert (first.champion, first.challenger) == (pytest.approx(0.3), pytest.approx(0.5))
    assert first.difference == pytest.approx(0.2)
    assert (second.champion, second.difference) == (None, None)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="cut off"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty"),
        pytest.param('{"champion": 1, "challenger": 2}', id="numbers"),
        pytest.param('{"champion": {"images": [1]}, "challenger": {"images": []}}', id="no row"),
    ],
)
def test_score_images_damaged_file_raises(tmp_path, content):
    (tmp_path / EVALUATION_FILE).write_text(content)
    with pytest.raises(RegistryError, match=EVALUATION_FILE):
        score_images(tmp_path)


def test_score_images_of_a_version_without_an_evaluation_are_none(tmp_path):
    assert score_images(tmp_path) == []


def test_read_text_too_large_raises(tmp_path):
    (tmp_path / "a").write_text("12345")
    assert read_text(tmp_path / "a", max_bytes=5) == "12345"
    with pytest.raises(RegistryError, match="at most 0 MiB"):
        read_text(tmp_path / "a", max_bytes=4)


@pytest.mark.parametrize(
    ("count", "worst", "best"),
    [
        pytest.param(0, [], [], id="none"),
        pytest.param(1, [0], [], id="one"),
        pytest.param(5, [0, 1, 2], [4, 3], id="few: no image in both"),
        pytest.param(9, [0, 1, 2], [8, 7, 6], id="many"),
    ],
)
def test_extremes_are_worst_and_best(count, worst, best):
    scores = [
        ImageScore(key=f"1/{task}/0", champion=None, challenger=task / 10) for task in reversed(range(count))
    ]
    found = extremes([*scores, ImageScore(key="1/99/0", champion=None, challenger=None)], 3)
    assert tuple([one.task_id for one in part] for part in found) == (worst, best)
