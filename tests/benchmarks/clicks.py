"""`python -m tests.benchmarks.clicks`: how good answers to clicks are, by set, model and way.

Made-up images of both domains with the shipped models; real images with these and with models of the
learning curves where `--models` names their folder (`base-2-FAMILY`, `SET-IMAGES-FAMILY`); any further set in
COCO form by `--data`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from maskloop.lab.base_model import made_up_examples
from maskloop.lab.simulation.data import coco_to_example, common_labels
from maskloop.lab.synthetic.coco import read_coco
from maskloop.learning.data.dataset import TrainingExample
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS

from .click_trials import MOST_CLICKS, run_trials, targets_of, ways
from .curve_data import SOURCES, load_pool
from .harness.machine import describe_machine

SEED = 10_000_000  # of made-up images that no shipped model has seen
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SHIPPED = {folder.name: folder for folder in (BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS)}
CURVES = {"nuclei": "nuclei", "fruits": "fruits", "coco104": "coco10"}  # set -> source of the learning curves


def main(words: Sequence[str]) -> int:
    """Print a table; write the JSON where asked."""
    options = _parse(words)
    torch.set_num_threads(options.threads)
    rows = []
    for name, model_name, checkpoint, examples in _sets(options):
        targets = targets_of(checkpoint, examples, options.objects)
        chosen = {way: made for way, made in ways().items() if not options.ways or way in options.ways}
        tallies = run_trials(targets, chosen, clicks=options.clicks, jitter=options.jitter)
        for way, tally in tallies.items():
            row = {"set": name, "model": model_name, "way": way, "jitter": options.jitter, **tally.row()}
            rows.append(row)
            print(_line(row), flush=True)
    if options.json is not None:
        text = json.dumps({"machine": describe_machine(), "clicks": rows}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _sets(options: argparse.Namespace) -> Iterator[tuple[str, str, Checkpoint, list[TrainingExample]]]:
    wanted = options.sets
    for domain in ("base", "shifted"):
        if f"made-up-{domain}" in wanted:
            examples = made_up_examples(SEED, -(-options.objects // 3), domain=domain)
            for model_name, folder in SHIPPED.items():
                if not options.only_models or model_name in options.only_models:
                    yield f"made-up-{domain}", model_name, load_checkpoint(folder, device="cpu"), examples
    for name, source in CURVES.items():
        if name in wanted and options.models is not None and (SHARED / SOURCES[source].folder).is_dir():
            holdout = list(load_pool(SHARED, SOURCES[source]).holdout)
            shipped = [
                one for one in SHIPPED.values() if not options.only_models or one.name in options.only_models
            ]
            learnt = sorted(
                one for one in options.models.iterdir() if one.name.startswith((f"{name}-", "base-2-"))
            )
            for folder in (*shipped, *learnt):
                if (folder / "config.json").is_file():
                    loaded, edge = load_checkpoint(folder, device="cpu"), SOURCES[source].edge
                    sizes = replace(loaded.preprocessing, shortest_edge=edge, longest_edge=2 * edge)
                    yield name, folder.name, replace(loaded, preprocessing=sizes), holdout
    if options.data is not None:
        images = read_coco(options.data)
        labels = common_labels(images, None)
        examples = [coco_to_example(image, labels, None) for image in images]
        for folder in [options.model] if options.model else list(SHIPPED.values()):
            yield options.data.name, Path(folder).name, load_checkpoint(folder, device="cpu"), examples


def _line(row: dict[str, object]) -> str:
    names = (
        "iou_1",
        "iou_3",
        "iou_5",
        "noc_80",
        "noc_85",
        "noc_90",
        "failures_85",
        "box_iou",
        "p50_cpu_ms",
        "p95_cpu_ms",
    )
    head = f"| {row['set']} | {row['model']} | {row['way']} |"
    return head + "".join(f" {row[name]} |" for name in names)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clicks", description=__doc__)
    names = ("made-up-base", "made-up-shifted", *CURVES)
    parser.add_argument("--sets", nargs="*", default=names, choices=names)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a further set in COCO form")
    parser.add_argument("--model", type=Path, help="for --data; default: the shipped ones")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="models of the learning curves")
    parser.add_argument("--only-models", nargs="*", default=(), help="of the shipped ones")
    parser.add_argument("--ways", nargs="*", default=())
    parser.add_argument("--objects", type=int, default=180, help="of each set (default 180)")
    parser.add_argument(
        "--clicks", type=int, default=MOST_CLICKS, help="on an object at the most (default 20)"
    )
    parser.add_argument("--jitter", type=float, default=0.0, help="0..1 of the way to the border (default 0)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
