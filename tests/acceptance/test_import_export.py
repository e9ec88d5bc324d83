"""A data set goes into a real Label Studio and comes out of the database again, pixel for pixel."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_api

from maskloop.curation.exports.export import export_snapshot
from maskloop.curation.exports.format import ExportPlan, ImagesMode
from maskloop.curation.exports.formats import FORMATS
from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop_studio.exchange.exporting import find_format
from maskloop_studio.exchange.folder_import import ImportAs, import_folder
from maskloop_studio.exchange.making import make_project_snapshot
from maskloop_studio.intake.reconcile import sync_project
from maskloop_studio.runtime.tasks import work_on

pytestmark = [
    pytest.mark.studio,
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

SIZE = (60, 80)
FORMS = {"brush": "Brush", "bitmask": "Bitmask", "polygon": "Polygon"}


def rle(*boxes, hole=(0, 0, 0, 0)):
    mask_hw = np.zeros(SIZE, np.uint8, order="F")
    for top, left, bottom, right in boxes:
        mask_hw[top:bottom, left:right] = 1
    mask_hw[hole[0] : hole[2], hole[1] : hole[3]] = 0
    return {"size": list(SIZE), "counts": coco_api.encode(mask_hw)["counts"].decode()}


@pytest.fixture
def folder(tmp_path):
    """Two images: an object with a hole, one of two parts, one in the other's hole, and none."""
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    masks = [
        rle((5, 5, 40, 40), hole=(15, 15, 30, 30)),
        rle((45, 5, 55, 20), (45, 50, 55, 79)),
        rle((18, 18, 25, 25)),
    ]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in (1, 2)],
        "categories": [{"id": 1, "name": "A"}, {"id": 2, "name": "a"}],
        "annotations": [
            {"id": k + 1, "image_id": 1, "category_id": k % 2 + 1, "iscrowd": 0, "segmentation": mask}
            for k, mask in enumerate(masks)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def config(tag):
    labels = '<Label value="A"/><Label value="a"/>'
    drawing = f'<{tag}Labels name="t" toName="i">{labels}</{tag}Labels>'
    return f'<View><Image name="i" value="$image"/>{drawing}</View>'


def objects_of(content):
    return sorted((one["category_id"], one["segmentation"]["counts"]) for one in content["annotations"])


def read_in(project_id, services):
    """Bring the database to what Label Studio has."""
    sync_project(
        project_id,
        store=services.store,
        client=services.client,
        settings=services.settings,
        run=lambda job_id: work_on(job_id, services),
        full=True,
    )


@pytest.mark.parametrize("form", FORMS)
def test_imported_masks_come_out_again(form, folder, services, client, make_project, tmp_path):
    source = json.loads((folder / "instances.json").read_text())
    opened = open_coco_folder(folder)
    first = make_project(f"data set {form}", config(FORMS[form]))
    report = import_folder(opened, first.id, client=client, become=ImportAs.ANNOTATIONS, model_version="")
    assert (report.tasks, report.objects, dict(report.left_out)) == (2, 3, {})
    again = import_folder(opened, first.id, client=client, become=ImportAs.ANNOTATIONS, model_version="")
    assert (again.tasks, again.present) == (0, 2)

    read_in(first.id, services)
    snapshot, left_out = make_project_snapshot(first.id, services)
    out = export_snapshot(
        snapshot, ExportPlan(format="coco"), FORMATS["coco"], tmp_path / "coco", cache=services.image_cache
    )
    assert (left_out, out.images.total(), out.failed) == (0, 2, 0)
    exported = json.loads((out.folder / "annotations" / "instances_train.json").read_text())
    assert objects_of(exported) == objects_of(source)  # IoU 1, holes and parts under one id

    plan = ExportPlan(format="label-studio", images=ImagesMode.NONE)
    studio_form = find_format("label-studio", snapshot)
    back = export_snapshot(
        snapshot, plan, studio_form, tmp_path / "studio", cache=services.image_cache
    ).folder
    second = make_project(f"again {form}", (back / "label_config.xml").read_text())
    client.import_tasks(second.id, json.loads((back / "tasks.json").read_text()))
    read_in(second.id, services)
    twice, _ = make_project_snapshot(second.id, services)
    masks = [sorted(row.rle for one in made.images() for row in one.objects) for made in (snapshot, twice)]
    assert masks[0] == masks[1]
    assert len(masks[0]) == 3
