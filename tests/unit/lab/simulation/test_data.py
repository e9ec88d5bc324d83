"""Which images may be asked about and which only judge; made-up pools and what they consist of."""

from collections import Counter

import numpy as np
import pytest

from maskloop.errors import CodecError, ConfigurationError
from maskloop.lab.simulation.data import load_data
from maskloop.lab.synthetic.pools import SHARES, make_pool_image, pool_kind


def test_load_data_made_up_splits_by_name_alone():
    few, all_of_it = (load_data("made-up", holdout=0.25, images=24, limit=limit) for limit in (5, None))
    assert (len(few.pool), len(all_of_it.pool), len(all_of_it.holdout)) == (5, 18, 6)
    assert [one.key for one in few.holdout] == [one.key for one in all_of_it.holdout]
    assert [one.key for one in few.pool] == [one.key for one in all_of_it.pool[:5]]
    assert not {one.key for one in all_of_it.pool} & {one.key for one in all_of_it.holdout}
    assert list(all_of_it.labels) == sorted(all_of_it.labels)


def test_load_data_digest_tells_other_data_from_the_same():
    asked = [(8, 0.5), (8, 0.5), (9, 0.5), (8, 0.25)]
    first, again, *others = (load_data("made-up", holdout=share, images=count) for count, share in asked)
    assert first.digest == again.digest
    assert len({first.digest, *(other.digest for other in others)}) == 3


def test_load_data_no_such_folder_names_the_file(tmp_path):
    with pytest.raises(CodecError, match=r"instances\.json"):
        load_data(str(tmp_path / "nothing"), holdout=0.5)


@pytest.mark.parametrize(("images", "holdout"), [(3, 0.01), (4, 0.9)], ids=["none judges", "no pool"])
def test_load_data_too_few_images_raises(images, holdout):
    with pytest.raises(ConfigurationError, match="two images to choose from"):
        load_data("made-up", holdout=holdout, images=images)


def test_pool_kind_shares_are_those_that_are_promised():
    counts = Counter(pool_kind(seed) for seed in range(4000))
    assert {kind: counts[kind] / 4000 for kind in SHARES} == pytest.approx(SHARES, abs=0.03)


def test_make_pool_image_rare_classes_are_on_rare_images_alone():
    for seed in range(60):
        labels = {segment.label for segment in make_pool_image(seed, size_hw=(48, 48)).segments}
        assert labels <= ({"ring", "star"} if pool_kind(seed) == "rare" else {"disc", "square", "triangle"})


def test_make_pool_image_same_seed_same_pixels():
    first, again = (make_pool_image(7, size_hw=(48, 48)).image_hwc for _ in range(2))
    np.testing.assert_array_equal(first, again)
