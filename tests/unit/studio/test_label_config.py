"""Label configs as people write them, and as they should not be."""

import pytest

from maskloop.errors import LabelConfigError
from maskloop_studio.label_config import map_labels, parse_label_config

BOTH = """<View><!-- two ways to draw --><Image name="img" value="$photo"/>
<PolygonLabels name="poly" toName="img"><Label value="Car"/><Label value="Tree"/></PolygonLabels>
<View><BrushLabels name="brush" toName="img">
  <Label value="Car"/><Label value="dog" predicted_values="puppy, Hound"/><Label value="Shown" alias="kept"/>
</BrushLabels></View><Choices name="c" toName="img"><Choice value="Blurred"/></Choices></View>"""


def _view(inside):
    return f"<View>{inside}</View>"


IMAGE = '<Image name="image" value="$image"/>'
BRUSH = '<BrushLabels name="b" toName="image"><Label value="Car"/></BrushLabels>'


def test_parse_label_config_both_controls_are_read_in_order():
    config = parse_label_config(BOTH)
    assert (config.image_name, config.image_field) == ("img", "photo")
    assert [(c.name, c.kind, c.to_name) for c in config.controls] == [
        ("poly", "polygon", "img"),
        ("brush", "brush", "img"),
    ]
    assert config.controls[1].labels == ("Car", "dog", "kept")
    assert dict(config.controls[1].aliases) == {"puppy": "dog", "Hound": "dog", "Shown": "kept"}
    assert config.all_labels == ("Car", "Tree", "dog", "kept")


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        pytest.param("", "XML text, got nothing", id="empty"),
        pytest.param(None, "XML text, got NoneType", id="none"),
        pytest.param("<View>", "a label config", id="not closed"),
        pytest.param(
            '<?xml version="1.0" encoding="utf-8"?><View/>', "a label config", id="declared encoding"
        ),
        pytest.param(_view(BRUSH), "an <Image>", id="no image"),
        pytest.param(_view(IMAGE), "<BrushLabels> or <PolygonLabels>", id="no control"),
        pytest.param(
            _view(IMAGE + BRUSH.replace("image", "other")), "drawing on the <Image>", id="other object"
        ),
        pytest.param(_view(IMAGE + BRUSH.replace('<Label value="Car"/>', "")), "with labels", id="no labels"),
        pytest.param(_view(IMAGE.replace("$image", "http://x/$a/$b") + BRUSH), "one field", id="composed"),
        pytest.param(_view(IMAGE.replace("value", "valueList") + BRUSH), "one field", id="several images"),
        pytest.param("<!DOCTYPE v [<!ENTITY a 'b'>]>" + _view(IMAGE + BRUSH), "no DOCTYPE", id="entities"),
        pytest.param("<View>" * 5000 + "</View>" * 5000, "a label config", id="deep"),
        pytest.param(_view(IMAGE + BRUSH + " " * 2**20), "at most 1048576 characters", id="long"),
    ],
)
def test_parse_label_config_unusable_raises(xml, words):
    with pytest.raises(LabelConfigError, match=words):
        parse_label_config(xml)


@pytest.mark.parametrize(
    ("model_label", "expected"),
    [
        pytest.param("Car", ("poly", "Car"), id="exact, first control"),
        pytest.param("tree", ("poly", "Tree"), id="another case"),
        pytest.param("DOG", ("brush", "dog"), id="another case, second control"),
        pytest.param("hound", ("brush", "dog"), id="predicted value"),
        pytest.param("Shown", ("brush", "kept"), id="shown value of an alias"),
    ],
)
def test_map_labels_finds_label(model_label, expected):
    (target,) = map_labels(parse_label_config(BOTH), [model_label]).targets_of(model_label)
    assert (target.control.name, target.label) == expected


@pytest.mark.parametrize(
    ("prefer", "names"),
    [("first", ["poly"]), ("brush", ["brush"]), ("polygon", ["poly"]), ("both", ["poly", "brush"])],
)
def test_map_labels_preference_decides_among_controls(prefer, names):
    label_map = map_labels(parse_label_config(BOTH), ["Car", "Tree"], prefer=prefer)
    assert [target.control.name for target in label_map.targets_of("Car")] == names
    assert [target.control.name for target in label_map.targets_of("Tree")] == ["poly"]


def test_map_labels_exact_name_wins_over_case():
    xml = _view(IMAGE + BRUSH.replace("/>", '/><Label value="car"/>'))
    label_map = map_labels(parse_label_config(xml), ["car", "Car"])
    assert [label_map.targets_of(name)[0].label for name in ("car", "Car")] == ["car", "Car"]


def test_map_labels_unmatched_are_listed():
    label_map = map_labels(parse_label_config(BOTH), ["Car", "zebra", "Blurred"])
    assert label_map.unmatched_classes == ("zebra", "Blurred")
    assert label_map.unmatched_labels == ("Tree", "dog", "kept")
    assert label_map.targets_of("zebra") == ()


def test_map_labels_nothing_in_common_raises_with_both_sides():
    with pytest.raises(LabelConfigError, match=r"zebra, lynx.*Car, Tree, dog, kept.*predicted_values"):
        map_labels(parse_label_config(BOTH), ["zebra", "lynx"])
