"""transformers' examples for instance and semantic segmentation train on exported folders."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskloop.curation.exports.export import export_snapshot
from maskloop.curation.exports.format import ExportPlan
from maskloop.curation.exports.formats import FORMATS
from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.curation.imports.folder_snapshot import freeze_folder
from maskloop.lab.synthetic.shapes import make_image
from maskloop.mask_runs import segment_to_rle
from maskloop.settings import BASE_MODEL
from maskloop.store.images import ImageCache

SIZE = (96, 128)


@pytest.fixture
def hf_folder(tmp_path):
    """Return a function that exports four made-up images in a format."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    images, annotations, labels = [], [], {}
    for number in range(1, 5):
        made = make_image(number, size_hw=SIZE)
        Image.fromarray(made.image_hwc).save(source / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for segment in made.segments:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.setdefault(segment.label, len(labels) + 1),
                    "segmentation": {"size": list(SIZE), "counts": segment_to_rle(segment, SIZE)},
                }
            )
    categories = [{"id": number, "name": label} for label, number in labels.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (source / "instances.json").write_text(json.dumps(content))
    cache = ImageCache(tmp_path / "cache")
    snapshot = freeze_folder(open_coco_folder(source), cache=cache, root=tmp_path / "snapshots")

    def export(name):
        plan = ExportPlan(format=name)
        return export_snapshot(snapshot, plan, FORMATS[name], tmp_path / name, cache=cache).folder

    return export


def assert_trains(model, rows, tmp_path, **parts):
    """Train three steps, as both examples do it."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=3,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    result = Trainer(model=model, args=arguments, train_dataset=rows, **parts).train()
    assert result.global_step == 3
    assert np.isfinite(result.training_loss)


@pytest.mark.filterwarnings("ignore")
def test_transformers_example_trains_three_steps(hf_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

    # What examples/pytorch/instance-segmentation/run_instance_segmentation.py does with a data set, without
    # its augmentation, with --do_reduce_labels.
    dataset = load_dataset(str(hf_folder("hf")), cache_dir=str(tmp_path / "datasets"))
    classes = dataset["train"][0]["semantic_class_to_id"]
    label2id = {name: number - 1 for name, number in classes.items() if number != 0}
    processor = AutoImageProcessor.from_pretrained(
        BASE_MODEL, do_resize=True, size={"height": 96, "width": 96}, do_reduce_labels=True, ignore_index=255
    )
    model = AutoModelForUniversalSegmentation.from_pretrained(
        BASE_MODEL,
        label2id=label2id,
        id2label={number: name for name, number in label2id.items()},
        ignore_mismatched_sizes=True,
    )

    def transform(examples):
        batch = {"pixel_values": [], "mask_labels": [], "class_labels": []}
        for image, annotation in zip(examples["image"], examples["annotation"], strict=True):
            maps = np.array(annotation)[..., :2]
            pairs = np.unique(maps.reshape(-1, 2), axis=0)
            inputs = processor(
                images=[np.array(image)],
                segmentation_maps=[maps[..., 1]],
                instance_id_to_semantic_id={number: category for category, number in pairs},
                return_tensors="pt",
            )
            for name, values in batch.items():
                values.append(inputs[name][0])
        return batch

    def collate(examples):
        batch = {name: [one[name] for one in examples] for name in ("class_labels", "mask_labels")}
        return {**batch, "pixel_values": torch.stack([one["pixel_values"] for one in examples])}

    first = transform(dataset["train"][:1])
    assert (
        len(first["class_labels"][0])
        == len(np.unique(np.array(dataset["train"][0]["annotation"])[..., 1])) - 1
    )
    trained = dataset["train"].with_transform(transform)
    assert_trains(model, trained, tmp_path, data_collator=collate)


@pytest.mark.filterwarnings("ignore")
def test_transformers_semantic_example_trains_three_steps(hf_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
    from transformers.trainer import default_data_collator

    # What examples/pytorch/semantic-segmentation/run_semantic_segmentation.py does with a data set, without
    # its augmentation, with --do_reduce_labels: its columns are `image` and `label`, its names id2label.json.
    folder = hf_folder("hf-semantic")
    dataset = load_dataset(str(folder), cache_dir=str(tmp_path / "datasets"))
    id2label = {
        int(number): name for number, name in json.loads((folder / "id2label.json").read_text()).items()
    }
    processor = SegformerImageProcessor(do_reduce_labels=True, size={"height": 64, "width": 64})
    config = SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=max(id2label) + 1,
        id2label=id2label,
        label2id={name: number for number, name in id2label.items()},
    )

    def transform(examples):
        return processor(examples["image"], segmentation_maps=examples["label"], return_tensors="pt")

    seen = torch.cat(
        [transform(dataset["train"][row : row + 1])["labels"].unique() for row in range(4)]
    ).unique()
    assert set(seen.tolist()) - {255} <= {number - 1 for number in id2label}
    assert len(seen) > 2
    model = SegformerForSemanticSegmentation(config)
    assert_trains(
        model, dataset["train"].with_transform(transform), tmp_path, data_collator=default_data_collator
    )
