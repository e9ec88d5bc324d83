"""Label configs that people write, and those that cannot be used."""

import pytest

from maskloop.errors import LabelConfigError
from maskloop.types import SegmentationTask
from maskloop_studio.formats import label_config
from maskloop_studio.formats.label_config import map_labels, parse_label_config

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
        pytest.param(_view(IMAGE.replace("$image", "image") + BRUSH), "a field of the task", id="no field"),
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


PAIRS = """<View maskloop_task="panoptic"><Image name="image" value="$image"/>
<Brush name="brush" toName="image"/><Rectangle name="box" toName="image" smart="true"/>
<Labels name="things" toName="image" model_score_threshold="0.7"><Label value="Car"/></Labels>
<EllipseLabels name="round" toName="image" model_score_threshold="0.25"><Label value="Wheel"/></EllipseLabels>
<KeyPointLabels name="point" toName="image"><Label value="Car"/><Label value="Tree"/></KeyPointLabels>
<RectangleLabels name="area" toName="image"><Label value="Tree"/></RectangleLabels></View>"""


def test_parse_label_config_every_form_and_pair_is_read():
    config = parse_label_config(PAIRS)
    assert [(c.name, c.kind, c.labels_name, c.region_type, c.labels_key) for c in config.controls] == [
        ("brush", "brush", "things", "brush", "labels"),
        ("box", "rectangle", "things", "rectangle", "labels"),
        ("round", "ellipse", None, "ellipselabels", "ellipselabels"),
        ("point", "keypoint", None, "keypointlabels", "keypointlabels"),
        ("area", "rectangle", None, "rectanglelabels", "rectanglelabels"),
    ]
    assert config.task is SegmentationTask.PANOPTIC
    assert config.all_labels == ("Car", "Wheel", "Tree")


@pytest.mark.parametrize(
    ("prefer", "car", "tree"),
    [
        pytest.param("first", ["brush"], ["point"], id="first"),
        pytest.param("rectangle", ["box"], ["area"], id="kind"),
        pytest.param("area", ["brush"], ["area"], id="name of a control"),
        pytest.param("things", ["brush"], ["point"], id="name of the labels"),
        pytest.param("nothing", ["brush"], ["point"], id="unknown falls back"),
        pytest.param("both", ["brush", "point"], ["point", "area"], id="all but prompts"),
    ],
)
def test_map_labels_sends_each_class_where_its_label_is(prefer, car, tree):
    label_map = map_labels(parse_label_config(PAIRS), ["car", "Tree"], prefer=prefer)
    assert [target.control.name for target in label_map.targets_of("car")] == car
    assert [target.control.name for target in label_map.targets_of("Tree")] == tree


def test_map_labels_first_takes_a_mask_before_an_earlier_box():
    box = '<RectangleLabels name="box" toName="image"><Label value="Car"/></RectangleLabels>'
    label_map = map_labels(parse_label_config(_view(IMAGE + box + BRUSH)), ["Car"])
    assert [target.control.name for target in label_map.targets_of("Car")] == ["b"]


def test_score_thresholds_are_those_of_the_controls():
    label_map = map_labels(parse_label_config(PAIRS), ["car", "wheel", "Tree"])
    assert label_map.score_thresholds() == {"car": 0.7, "wheel": 0.25}


@pytest.mark.parametrize("text", ["50", "-0.1", "nan", "half"])
def test_parse_label_config_threshold_that_is_none_raises(text):
    xml = _view(IMAGE + BRUSH.replace('name="b"', f'name="b" model_score_threshold="{text}"'))
    with pytest.raises(LabelConfigError, match=r"number 0\.\.1"):
        parse_label_config(xml)


@pytest.mark.parametrize(
    ("xml", "task"),
    [
        pytest.param(_view(IMAGE + BRUSH), None, id="none"),
        pytest.param(
            _view(IMAGE + BRUSH.replace('name="b"', 'name="b" maskloop_task="Semantic"')),
            SegmentationTask.SEMANTIC,
            id="on the control",
        ),
        pytest.param(
            f'<View><View maskloop_task="instance">{IMAGE}{BRUSH}</View></View>',
            SegmentationTask.INSTANCE,
            id="on an inner view",
        ),
    ],
)
def test_parse_label_config_task_hint_is_read(xml, task):
    assert parse_label_config(xml).task == task


def test_parse_label_config_unknown_task_raises():
    with pytest.raises(LabelConfigError, match=r"instance, semantic, panoptic.*boxes"):
        parse_label_config(f'<View maskloop_task="boxes">{IMAGE}{BRUSH}</View>')


KIND = '<BrushLabels name="b" toName="image"><Label value="sky" maskloop_kind="Stuff"/>'
KIND += '<Label value="car" alias="c" maskloop_kind="thing"/><Label value="road"/></BrushLabels>'


def test_parse_label_config_stuff_and_things_are_read():
    config = parse_label_config(_view(IMAGE + KIND))
    assert (config.stuff_labels, config.thing_labels) == ({"sky"}, {"c"})


def test_parse_label_config_unknown_kind_raises():
    with pytest.raises(LabelConfigError, match="maskloop_kind out of stuff, thing, got 'object'"):
        parse_label_config(_view(IMAGE + KIND.replace("thing", "object")))


SEVERAL = """<View><Image name="rgb" value="$rgb"/><Image name="ir" value="$ir"/><Text name="t" value="$t"/>
<Image name="reference" value="$reference"/><PolygonLabels name="poly" toName="rgb, ir"><Label value="Car"/>
</PolygonLabels><BrushLabels name="brush" toName="ir"><Label value="Car"/><Label value="Tree"/></BrushLabels>
<Choices name="c" toName="t"><Choice value="a"/></Choices></View>"""


def test_parse_label_config_several_images_keep_their_controls():
    config = parse_label_config(SEVERAL)
    assert [image.name for image in config.images] == ["rgb", "ir", "reference"]
    assert [image.name for image in config.drawn_images] == ["rgb", "ir"]
    assert [(c.name, c.to_names) for c in config.controls] == [("poly", ("rgb", "ir")), ("brush", ("ir",))]
    assert config.other_objects == {"t"}


@pytest.mark.parametrize(
    ("image_name", "prefer", "names"),
    [
        pytest.param(None, "first", ["poly"], id="first image"),
        pytest.param("ir", "first", ["poly"], id="second image"),
        pytest.param("ir", "brush", ["brush"], id="second image, by kind"),
        pytest.param("rgb", "brush", ["poly"], id="first image has no brush"),
        pytest.param("ir", "both", ["poly", "brush"], id="second image, both"),
        pytest.param("reference", "both", [], id="image without a control"),
    ],
)
def test_map_labels_each_image_has_its_own_controls(image_name, prefer, names):
    label_map = map_labels(parse_label_config(SEVERAL), ["Car"], prefer=prefer)
    targets = label_map.targets_of("Car", image_name=image_name)
    assert [target.control.name for target in targets] == names
    assert {target.to_name for target in targets} <= {image_name or "rgb"}


@pytest.mark.parametrize("tag", ["Bitmask", "Vector", "Brush", "MagicWand"])
def test_parse_label_config_bare_tools_take_their_labels(tag):
    tools = (
        f'<{tag} name="tool" toName="image"/><Labels name="l" toName="image"><Label value="Car"/></Labels>'
    )
    (control,) = parse_label_config(_view(IMAGE + tools)).controls
    assert (control.region_type, control.labels_key, control.labels) == (tag.lower(), "labels", ("Car",))


@pytest.mark.parametrize(
    "value", ["$payload.image", "$images[0]", "$image-url", "https://host/$image", "/data/a.png"]
)
def test_parse_label_config_address_that_a_task_resolves_is_accepted(value):
    config = parse_label_config(_view(IMAGE.replace("$image", value) + BRUSH))
    assert config.images[0].expression == value


def _many(count, tag, inside=""):
    return "".join(f'<{tag} name="{tag}{n}" toName="image">{inside}</{tag}>' for n in range(count))


MANY_LABELS = "".join(f'<Label value="{n}"/>' for n in range(300))


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        pytest.param(
            _view(IMAGE + _many(40, "Brush") + _many(40, "Labels", '<Label value="Car"/>')),
            "at most 1000 controls",
            id="brushes times labels",
        ),
        pytest.param(
            _view(IMAGE + _many(1001, "Brush") + _many(1, "Labels", "<Label value='a'/>")),
            "at most 1000 controls",
            id="brushes",
        ),
        pytest.param(
            _view(IMAGE + _many(900, "Rectangle") + _many(1, "Labels", MANY_LABELS)),
            "at most 200000 labels",
            id="labels of all controls",
        ),
        pytest.param(_view(IMAGE + BRUSH + "<a/>" * 100_000), "at most 100000 tags", id="tags"),
    ],
)
def test_parse_label_config_too_much_from_little_text_raises(xml, words):
    with pytest.raises(LabelConfigError, match=words):
        parse_label_config(xml)


def test_parse_label_config_many_images_and_pairs_raises():
    names = ",".join(f"i{n}" for n in range(500))
    images = "".join(f'<Image name="i{n}" value="$image"/>' for n in range(500))
    tools = (
        f'<Brush name="b" toName="{names}"/>'
        + f'<Labels name="l" toName="{names}"><Label value="a"/></Labels>'
    )
    many = "".join(tools.replace('"b"', f'"b{n}"').replace('"l"', f'"l{n}"') for n in range(20))
    with pytest.raises(LabelConfigError, match="at most 200000"):
        parse_label_config(_view(images + many))


def test_parse_label_config_controls_of_one_labels_tag_share_its_labels():
    xml = _view(IMAGE + _many(30, "Brush") + _many(1, "Labels", '<Label value="Car"/><Label value="Dog"/>'))
    controls = parse_label_config(xml).controls
    assert len(controls) == 30
    assert {id(control.labels) for control in controls} == {id(controls[0].labels)}


def test_parse_label_config_cache_is_bounded_by_bytes():
    for number in range(20):
        parse_label_config(_view(IMAGE + BRUSH + f"<!-- {number} {'x' * 200_000} -->"))
    assert label_config._cache.currsize <= label_config.CACHE_BYTES
    assert 0 < len(label_config._cache) < 20
