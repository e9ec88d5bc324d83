"""Peak memory of exports by the number of images: made-up rows, each format in a process of its own.

    .venv/bin/python -m tests.benchmarks.export_scale --images 10000,100000 --formats coco,parquet

Annotations only (`--images none`), except for `hf` and `hf-semantic`, whose readers want the images: each of
them is a hard link to one of 500 small files, which are not counted among the written bytes. What a format
has written is deleted before the next one.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

OBJECTS = 8  # an image
SIZE = (480, 640)
MASKS = 500  # different ones
CLASSES = 20
WITH_IMAGES = ("hf", "hf-semantic")


def made_up_files(cache):
    """Keep 500 small image files, and return their keys."""
    import cv2
    import numpy as np

    random = np.random.default_rng(8)
    keys = []
    for _ in range(MASKS):
        colours_hwc = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image_hwc = cv2.resize(colours_hwc, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        keys.append(cache.put(cv2.imencode(".jpg", image_hwc)[1].tobytes()))
    return keys


def made_up_images(count, keys):
    """Yield images with ellipses that have a hole; their files are those of the keys, in turn."""
    import numpy as np

    from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage
    from maskloop.mask_runs import segment_to_rle
    from maskloop.types import Segment

    random = np.random.default_rng(7)
    masks = []
    for _ in range(MASKS):
        height, width = random.integers(20, 120, 2)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        mask_hw = (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.1)
        rows, columns = (np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0))
        mask_hw = mask_hw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = random.integers(0, SIZE[0] - height), random.integers(0, SIZE[1] - width)
        segment = Segment(mask_hw=mask_hw, offset_yx=(int(top), int(left)), label="")
        masks.append((segment, segment_to_rle(segment, SIZE)))
    for number in range(1, count + 1):
        item = f"task-{number:012d}"
        image = ImageRow(
            item=item,
            number=number,
            file_name=f"{number}.jpg",
            image_key=keys[number % len(keys)],
            image_uri=f"/data/upload/1/{number}.jpg",
            height=SIZE[0],
            width=SIZE[1],
            split="validation" if number % 5 == 0 else "train",
            source="annotation",
            project_id=1,
            task_id=number,
            annotation_id=number,
            version_id=number,
            annotator=number % 7,
            updated_at="2026-01-02T03:04:05.000000+00:00",
        )
        objects = []
        for position in range(OBJECTS):
            segment, rle = masks[(number * OBJECTS + position * 37) % MASKS]
            category = (number + position) % CLASSES + 1
            objects.append(
                ObjectRow(
                    item=item,
                    position=position,
                    number=number * OBJECTS + position,
                    kind="object",
                    category_id=category,
                    label=f"class {category}",
                    area=segment.area,
                    top=segment.offset_yx[0],
                    left=segment.offset_yx[1],
                    box_height=segment.mask_hw.shape[0],
                    box_width=segment.mask_hw.shape[1],
                    rle=rle,
                    score=1.0,
                )
            )
        yield SnapshotImage(image=image, objects=tuple(objects))


def _measure(work, count, name, answers):
    from maskloop.curation.exports.export import export_snapshot
    from maskloop.curation.exports.format import ExportPlan, ImagesMode
    from maskloop.curation.exports.formats import FORMATS
    from maskloop.curation.snapshots.rows import Category
    from maskloop.curation.snapshots.snapshot_folder import SnapshotOrigin, open_snapshot, write_snapshot
    from maskloop.store.images import ImageCache

    root, cache = work / f"snapshots-{count}", ImageCache(work / "cache")
    began = time.perf_counter()
    if name == "snapshot":
        categories = [Category(id=number, name=f"class {number}") for number in range(1, CLASSES + 1)]
        origin = SnapshotOrigin(project_id=1, rule="newest", categories=categories, label_configs={})
        keys = made_up_files(cache)
        began = time.perf_counter()
        write_snapshot(made_up_images(count, keys), lambda: origin, root=root)
    else:
        snapshot = open_snapshot(next(root.iterdir()))
        began = time.perf_counter()
        images = ImagesMode.LINK if name in WITH_IMAGES else ImagesMode.NONE
        plan = ExportPlan(format=name, images=images)
        target = work / f"{name}-{count}"
        export_snapshot(snapshot, plan, FORMATS[name], target, cache=cache)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answers.put({"images": count, "format": name, "seconds": round(seconds, 1), "peak_mb": round(peak)})


def _written_mb(folder):
    """Return the megabytes of the files in a folder; hard links to files of elsewhere are not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            found = os.stat(os.path.join(root, name))
            total += found.st_size if found.st_nlink == 1 else 0
    return round(total / 1e6, 1)


def main():
    """Print a row for each number of images and format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="1000,10000")
    parser.add_argument("--formats", default="coco,parquet")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="a folder whose snapshots are kept, for a run in parts")
    arguments = parser.parse_args()
    rows = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        for count in map(int, arguments.images.split(",")):
            for name in ("snapshot", *filter(None, arguments.formats.split(","))):
                if name == "snapshot" and (folder / f"snapshots-{count}").is_dir():
                    continue
                answers = context.Queue()
                process = context.Process(target=_measure, args=(folder, count, name, answers))
                process.start()
                rows.append(answers.get(timeout=7200))
                process.join()
                written = folder / (f"snapshots-{count}" if name == "snapshot" else f"{name}-{count}")
                rows[-1]["written_mb"] = _written_mb(written)
                if name != "snapshot":
                    shutil.rmtree(written)
                print(rows[-1], flush=True)
                if arguments.json is not None:
                    arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
