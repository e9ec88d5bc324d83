"""Features are bounded in bytes, and go with their model or image."""

import gc
from types import SimpleNamespace

import pytest

from maskloop.interactive.feature_cache import FeatureCache, FeatureKey
from maskloop.segmentation.upsample import Window

PARTS = [Window(top=0, left=left, bottom=8, right=left + 8) for left in range(3)]


class _Model:
    """What a weak reference can point at."""


def _key(source, content, task="instance", window=None):
    return FeatureKey(source=source, content=content, task=task, window=window)


def _checkpoint():
    return SimpleNamespace(model=_Model())


def test_feature_cache_ten_thousand_images_stay_inside_the_bound(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(10 * features.size_bytes + 1)
    for number in range(10_000):
        cache.put(_key("m", str(number)), checkpoint, features)
        assert cache.held_bytes <= 10 * features.size_bytes + 1
    assert len(cache) == 10
    assert cache.find(_key("m", "9999")) is features
    assert cache.find(_key("m", "9989")) is None


def test_feature_cache_used_last_stays(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(2 * features.size_bytes)
    for name in ("a", "b"):
        cache.put(_key("m", name), checkpoint, features)
    cache.find(_key("m", "a"))
    cache.put(_key("m", "c"), checkpoint, features)
    assert [cache.find(_key("m", name)) is None for name in "abc"] == [False, True, False]


def test_feature_cache_larger_than_the_bound_is_not_kept(make_features):
    features = make_features()
    cache = FeatureCache(features.size_bytes - 1)
    cache.put(_key("m", "a"), _checkpoint(), features)
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_feature_cache_drops_by_model_and_by_image(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(100 * features.size_bytes)
    for key in (_key("m", "a"), _key("m", "b"), _key("n", "a", "panoptic")):
        cache.put(key, checkpoint, features)
    cache.drop_image("b")
    cache.drop_model("m")
    assert (len(cache), cache.held_bytes) == (1, features.size_bytes)
    assert cache.find(_key("n", "a", "panoptic")) is features


def test_feature_cache_model_that_is_gone_has_no_features(make_features):
    cache, checkpoint = FeatureCache(2**20), _checkpoint()
    cache.put(_key("m", "a"), checkpoint, make_features())
    del checkpoint
    gc.collect()
    assert cache.find(_key("m", "a")) is None
    assert cache.held_bytes == 0


def test_feature_cache_parts_of_many_objects_stay_inside_the_bound_one_of_an_image(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(4 * features.size_bytes)
    for name in "ab":
        cache.put(_key("m", name), checkpoint, features)
        for number in range(100):
            cache.put(_key("m", name, window=PARTS[number % 3]), checkpoint, features)
            assert cache.held_bytes <= 4 * features.size_bytes
    assert len(cache) == 4, "clicks on many small objects of one image cost no other image its features"
    found = [cache.find(_key("m", name, window=one)) is not None for name in "ab" for one in (None, *PARTS)]
    assert found == [True, True, False, False] * 2


@pytest.mark.parametrize(
    ("images", "with_whole", "kept"),
    [(2, True, True), (1.9, True, False), (2, False, False)],
    ids=["room for both", "room for one", "without its image"],
)
def test_feature_cache_part_never_takes_the_place_of_its_own_image(make_features, images, with_whole, kept):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(int(images * features.size_bytes))
    if with_whole:
        cache.put(_key("m", "a"), checkpoint, features)
    if images == 2:
        cache.put(_key("m", "b"), checkpoint, features)  # the oldest is the image itself
    cache.put(_key("m", "a", window=PARTS[0]), checkpoint, features)
    assert (cache.find(_key("m", "a")) is not None) is with_whole
    assert (cache.find(_key("m", "a", window=PARTS[0])) is not None) is kept


def test_feature_cache_parts_go_with_their_image_and_model(make_features):
    cache, checkpoint = FeatureCache(2**20), _checkpoint()
    for key in (_key("m", "a"), _key("m", "b"), _key("n", "a")):
        for window in (None, PARTS[0]):
            cache.put(key._replace(window=window), checkpoint, make_features())
    cache.drop_image("b")
    assert cache.find(_key("m", "b", window=PARTS[0])) is None
    cache.drop_model("m")
    assert len(cache) == 2
    assert cache.find(_key("n", "a", window=PARTS[0])) is not None
