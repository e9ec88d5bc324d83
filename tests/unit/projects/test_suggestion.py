"""Published checkpoints are picked by the project's labels, with the rule that connecting uses."""

import pytest

from maskloop.segmentation.class_kinds import published_stuff
from maskloop.segmentation.published import published_checkpoints
from maskloop_studio.cli.suggest_lines import suggestion_lines
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.suggestion import suggest_checkpoints


def config_of(*labels):
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return parse_label_config(
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="tag" toName="image">{inside}</BrushLabels></View>'
    )


# What the data sets' authors publish.
SIZES = {
    "COCO instance": 80,
    "COCO panoptic": 133,
    "Cityscapes instance": 8,
    "Cityscapes panoptic": 19,
    "ADE20K": 150,
}
STUFF = {"COCO panoptic": 53, "Cityscapes panoptic": 11, "ADE20K": 50}
checkpoint = pytest.mark.parametrize(
    "one", [pytest.param(one, id=one.name) for one in published_checkpoints()]
)


@checkpoint
def test_published_classes_are_those_of_the_data_set(one):
    assert len(one.classes) == len(set(one.classes)) == SIZES[one.dataset]
    assert len(published_stuff(one.classes) or ()) == STUFF.get(one.dataset, 0)


@checkpoint
def test_published_licence_of_metas_weights_forbids_commercial_use(one):
    is_metas = one.name.startswith("facebook/")
    assert (one.licence, one.forbids == "commercial use") == ("CC BY-NC 4.0" if is_metas else "MIT", is_metas)


@pytest.mark.parametrize(
    ("labels", "dataset", "known"),
    [
        pytest.param(("apple", "Orange"), "COCO instance", ("apple", "Orange"), id="things of COCO"),
        pytest.param(("rider", "terrain"), "Cityscapes panoptic", ("rider", "terrain"), id="Cityscapes"),
        pytest.param(("armchair", "chandelier", "x"), "ADE20K", ("armchair", "chandelier"), id="ADE20K"),
    ],
)
def test_suggest_the_first_knows_the_most_labels(labels, dataset, known):
    first = suggest_checkpoints(config_of(*labels))[0]
    assert (first.checkpoint.dataset, first.known) == (dataset, known)


def test_suggest_similar_class_is_what_predicted_values_takes():
    first = suggest_checkpoints(config_of("grass", "person"))[0]
    named = {one.checkpoint.dataset: one.similar for one in suggest_checkpoints(config_of("grass"))}
    assert first.known == ("grass", "person")  # ADE20K has both names
    assert named["COCO panoptic"] == {"grass": ("grass-merged",)}
    aliased = parse_label_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
        '<Label value="grass" predicted_values="grass-merged"/></BrushLabels></View>'
    )
    known = {one.checkpoint.dataset: one.known for one in suggest_checkpoints(aliased)}
    assert known["COCO panoptic"] == ("grass",)


def test_suggest_unknown_labels_are_counted_and_the_way_is_named():
    config = config_of("mitochondrion")
    lines = suggestion_lines(7, config.all_labels, suggest_checkpoints(config), width=80)
    text = " ".join(line.strip() for line in lines)
    assert f"{len(published_checkpoints())} further published checkpoints know none" in text
    assert "maskloop connect 7 --new-labels" in text


@pytest.mark.parametrize("width", [80, 120])
def test_suggest_lines_fit_the_terminal_and_names_stay_whole(width):
    labels = ("grass", "person", "car", *(f"a quite long label number {number}" for number in range(9)))
    config = config_of(*labels)
    lines = suggestion_lines(7, config.all_labels, suggest_checkpoints(config), width=width)
    assert max(map(len, lines)) <= width
    assert {one.name for one in published_checkpoints() if one.dataset == "ADE20K"} <= set(lines)
    assert any("forbids commercial use" in line for line in lines)
