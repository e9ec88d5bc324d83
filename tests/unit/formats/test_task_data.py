"""Addresses and dynamic labels that come with a task, as Label Studio's front end resolves them."""

import pytest

from maskloop.errors import LabelConfigError
from maskloop_studio.formats import TaskImage, config_for_task, map_labels, parse_label_config, task_images
from maskloop_studio.formats.task_data import resolve_expression

DATA = {
    "image": "/a.png",
    "image-url": "/b.png",
    "payload": {"image": "/c.png", "list": [{"url": "/d.png"}, {"url": "/e.png"}]},
    "images": ["/f.png", "/g.png"],
    "number": 7,
    "a.b": "/h.png",
    "图像": "/i.png",
    "nothing": None,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        pytest.param("$image", "/a.png", id="word"),
        pytest.param("$image-url", "/b.png", id="a key that is no word"),
        pytest.param("$图像", "/i.png", id="a key in another script"),
        pytest.param("$payload.image", "/c.png", id="nested"),
        pytest.param("$a.b", "/h.png", id="a key with a dot"),
        pytest.param("$images[1]", "/g.png", id="position"),
        pytest.param("$payload.list[1].url", "/e.png", id="position, nested"),
        pytest.param("$images", ["/f.png", "/g.png"], id="list"),
        pytest.param("https://host$image?n=$number", "https://host/a.png?n=7", id="inside a text"),
        pytest.param("https://host/x.png", "https://host/x.png", id="no variable"),
        pytest.param("$gone", None, id="no such key"),
        pytest.param("https://host/$gone", None, id="no such key inside a text"),
        pytest.param("https://host/$images", None, id="a list inside a text"),
        pytest.param("$images[9]", None, id="beyond the list"),
        pytest.param("$image.length", None, id="inside a text value"),
        pytest.param("$nothing", None, id="null"),
    ],
)
def test_resolve_expression_resolves_as_the_front_end(expression, expected):
    assert resolve_expression(expression, DATA) == expected


def _config(image, tools='<BrushLabels name="b" toName="image"><Label value="Car"/></BrushLabels>'):
    return parse_label_config(f"<View>{image}{tools}</View>")


def test_task_images_one_for_each_image_with_a_control():
    tools = '<BrushLabels name="b" toName="rgb,ir"><Label value="Car"/></BrushLabels>'
    images = "".join(f'<Image name="{name}" value="${name}"/>' for name in ("ref", "rgb", "ir"))
    config = parse_label_config(f"<View>{images}{tools}</View>")
    found = task_images(config, {"rgb": "/1.png", "ir": "/2.png"}, place="task 4")
    assert found == (
        TaskImage(to_name="rgb", item_index=None, address="/1.png"),
        TaskImage(to_name="ir", item_index=None, address="/2.png"),
    )
    assert (config.image_name, config.image_field) == ("rgb", "rgb")


def test_task_images_one_for_each_page():
    config = _config('<Image name="image" valueList="$images"/>')
    found = task_images(config, DATA, place="task 4")
    assert [(image.item_index, image.address) for image in found] == [(0, "/f.png"), (1, "/g.png")]


def test_task_images_value_that_is_a_list_is_its_first():
    (found,) = task_images(_config('<Image name="image" value="$images"/>'), DATA, place="task 4")
    assert (found.item_index, found.address) == (None, "/f.png")


@pytest.mark.parametrize(
    ("image", "got"),
    [
        pytest.param('value="$gone"', "no such value", id="no key"),
        pytest.param('value="$number"', "got int", id="number"),
        pytest.param('value="$payload"', "got dict", id="object"),
        pytest.param('value="$empty"', "an empty text", id="empty"),
        pytest.param('valueList="$none"', "an empty list", id="no pages"),
        pytest.param('valueList="$mixed"', "a list of 2 values, not all of them addresses", id="mixed pages"),
        pytest.param('valueList="$many"', "a list of 1001 values", id="too many pages"),
    ],
)
def test_task_images_no_address_raises_with_the_tasks_keys(image, got):
    data = {**DATA, "empty": " ", "none": [], "mixed": ["/a", 3], "many": ["/a"] * 1001}
    with pytest.raises(
        LabelConfigError, match=rf"task 4, <Image name='image'>.*{got}.*keys of the task's data"
    ):
        task_images(_config(f'<Image name="image" {image}/>'), data, place="task 4")


DYNAMIC = '<BrushLabels name="b" toName="image" value="$options"><Label value="Car"/></BrushLabels>'
PAIRED = '<Brush name="b" toName="image"/><Labels name="l" toName="image" value="$options"/>'


@pytest.mark.parametrize(
    ("tools", "options", "labels"),
    [
        pytest.param(DYNAMIC, ["cat", "dog"], ("Car", "cat", "dog"), id="texts after the config's own"),
        pytest.param(PAIRED, [{"value": "cat"}], ("cat",), id="objects, on Labels"),
        pytest.param(PAIRED, [{"value": "Cat", "alias": "c"}], ("c",), id="alias"),
        pytest.param(PAIRED, [{"value": 3}, None, "cat", "cat"], ("cat",), id="what is no label is left out"),
        pytest.param(PAIRED, [], (), id="none"),
    ],
)
def test_config_for_task_adds_the_tasks_labels(tools, options, labels):
    config = _config('<Image name="image" value="$image"/>', tools)
    assert config.is_dynamic
    resolved = config_for_task(config, {"options": options})
    assert (resolved.all_labels, resolved.is_dynamic) == (labels, False)


def test_config_for_task_static_config_is_the_same():
    config = _config('<Image name="image" value="$image"/>')
    assert config_for_task(config, {}) is config


@pytest.mark.parametrize(
    "options", ["cat", None, {"cat": 1}, ["x"] * 10_001], ids=["text", "none", "dict", "long"]
)
def test_config_for_task_no_list_raises(options):
    config = _config('<Image name="image" value="$image"/>', DYNAMIC)
    with pytest.raises(LabelConfigError, match=r"a list of at most 10000 labels in value='\$options'"):
        config_for_task(config, {"options": options})


def test_map_labels_dynamic_config_waits_for_the_task():
    config = _config('<Image name="image" value="$image"/>', PAIRED)
    assert map_labels(config, ["cat"]).unmatched_classes == ("cat",)
    resolved = config_for_task(config, {"options": ["Cat"]})
    assert [target.label for target in map_labels(resolved, ["cat"]).targets_of("cat")] == ["Cat"]
