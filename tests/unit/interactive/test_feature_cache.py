"""Features are bounded in bytes, and go with their model or image."""

import gc
from types import SimpleNamespace

from maskloop.interactive.feature_cache import FeatureCache


class _Model:
    """What a weak reference can point at."""


def _checkpoint():
    return SimpleNamespace(model=_Model())


def test_feature_cache_ten_thousand_images_stay_inside_the_bound(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(10 * features.size_bytes + 1)
    for number in range(10_000):
        cache.put(("m", str(number), "instance"), checkpoint, features)
        assert cache.held_bytes <= 10 * features.size_bytes + 1
    assert len(cache) == 10
    assert cache.find(("m", "9999", "instance")) is features
    assert cache.find(("m", "9989", "instance")) is None


def test_feature_cache_used_last_stays(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(2 * features.size_bytes)
    for name in ("a", "b"):
        cache.put(("m", name, "instance"), checkpoint, features)
    cache.find(("m", "a", "instance"))
    cache.put(("m", "c", "instance"), checkpoint, features)
    assert [cache.find(("m", name, "instance")) is None for name in "abc"] == [False, True, False]


def test_feature_cache_larger_than_the_bound_is_not_kept(make_features):
    features = make_features()
    cache = FeatureCache(features.size_bytes - 1)
    cache.put(("m", "a", "instance"), _checkpoint(), features)
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_feature_cache_drops_by_model_and_by_image(make_features):
    features, checkpoint = make_features(), _checkpoint()
    cache = FeatureCache(100 * features.size_bytes)
    for key in (("m", "a", "instance"), ("m", "b", "instance"), ("n", "a", "panoptic")):
        cache.put(key, checkpoint, features)
    cache.drop_image("b")
    cache.drop_model("m")
    assert (len(cache), cache.held_bytes) == (1, features.size_bytes)
    assert cache.find(("n", "a", "panoptic")) is features


def test_feature_cache_model_that_is_gone_has_no_features(make_features):
    cache, checkpoint = FeatureCache(2**20), _checkpoint()
    cache.put(("m", "a", "instance"), checkpoint, make_features())
    del checkpoint
    gc.collect()
    assert cache.find(("m", "a", "instance")) is None
    assert cache.held_bytes == 0
