"""Stored predictions stand in for annotations: which tasks, which prediction, which image."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from maskloop.errors import ConfigurationError
from maskloop.store.database import Store
from maskloop.store.images import ImageCache
from maskloop.types import Segment
from maskloop_studio.exchange.stored_predictions import stored_predictions
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.label_map import map_labels
from maskloop_studio.formats.prediction_writer import segment_to_regions

CONFIG = """<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">
<Label value="Car"/></BrushLabels></View>"""
VERSION = "maskloop-1-v2"


@pytest.fixture
def services(settings, tmp_path):
    """A database that knows of two pushed predictions, and a Label Studio that has them."""
    store = Store(settings.resolved_database_url)
    store.pushes.begin_many(1, [7, 8], VERSION)
    store.pushes.finish_many(1, VERSION, {7: 70, 8: 80})
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, "PNG")
    segment = Segment(mask_hw=np.ones((4, 5), dtype=bool), offset_yx=(2, 3), label="Car")
    target = map_labels(parse_label_config(CONFIG), ["Car"]).targets["Car"][0]
    result = segment_to_regions(segment, target, (20, 30), object_id="m" + "0" * 14)
    predictions = [
        {"id": number, "model_version": version, "result": result, "created_at": "2026-01-02T03:04:05Z"}
        for number, version in ((1, VERSION), (2, "other"))
    ]
    client = SimpleNamespace(
        project=lambda _: SimpleNamespace(label_config=CONFIG),
        task=lambda task_id, **_: (
            SimpleNamespace(data={"image": f"/data/{task_id}.png"}) if task_id == 7 else None
        ),
        predictions_of=lambda _: predictions,
    )
    yield SimpleNamespace(
        store=store,
        client=client,
        settings=settings,
        fetcher=SimpleNamespace(fetch=lambda *_, **__: buffer.getvalue()),
        image_cache=ImageCache(tmp_path / "images"),
    )
    store.close()


def test_predictions_of_a_version_become_corrections_of_tasks_that_are_there(services):
    (task,) = stored_predictions(1, f"predictions:{VERSION}", services)
    (one,) = task.corrections
    assert (task.task_id, one.model_version, one.size_hw, one.image_uri) == (
        7,
        VERSION,
        (20, 30),
        "/data/7.png",
    )
    assert [(segment.label, segment.area) for segment in one.segments] == [("Car", 20)]
    assert services.image_cache.path(one.image_key).exists()


@pytest.mark.parametrize("include", ["predictions:maskloop-1-v3", VERSION, "predictions:"])
def test_predictions_that_are_not_there_raise(include, services):
    with pytest.raises(ConfigurationError, match=VERSION):
        list(stored_predictions(1, include, services))
