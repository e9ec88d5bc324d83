"""A version says where it came from: to people as a card, to programs as front matter and metadata."""

import json

import pytest
from huggingface_hub import ModelCard as HubCard

from maskloop.learning.registry.model_card import (
    CodeVersion,
    ModelCard,
    ModelOrigin,
    code_version,
    learning_settings,
    origin_of_source,
    origin_of_version,
    write_card,
)
from maskloop.settings import BASE_MODEL
from maskloop.types import HoldoutMetrics

FALLBACK = ModelOrigin(base_model="fallback", licence="unknown")


def make_card(**changes):
    values = {
        "name": "maskloop-7",
        "origin": ModelOrigin(base_model="facebook/mask2former-swin-tiny-coco-instance", licence="other"),
        "labels": ("disc", "Größe, 2"),
        "parent": "maskloop-7-v2",
        "task": "instance",
        "metrics": HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=24),
        "decision": "score rose: 0.3 -> 0.5",
        "train_images": 12,
        "snapshot": "ab" * 32,
        "dataset": "cd" * 32,
        "seed": 7,
        "code": CodeVersion(version="0.1.0", commit="c0ffee"),
    }
    return ModelCard(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mask2former"}')
    return tmp_path


def test_write_card_is_readable_by_the_hub_with_all_facts(folder):
    write_card(folder, make_card())
    read = HubCard.load(folder / "README.md")
    assert (read.data.license, read.data.base_model) == (
        "other",
        "facebook/mask2former-swin-tiny-coco-instance",
    )
    assert read.data.tags == ["maskloop", "image-segmentation", "mask2former", "instance"]
    assert {result.metric_type: result.metric_value for result in read.data.eval_results} == {
        "pq": 0.4,
        "ap50": 0.5,
        "miou": 0.6,
    }
    for words in (
        "maskloop-7-v2",
        "Größe, 2",
        "score rose",
        "12 corrected images",
        "seed 7",
        "c0ffee",
        "| PQ |",
    ):
        assert words in read.text


def test_write_card_unknown_licence_is_stated(folder):
    bare = {"parent": None, "task": None, "metrics": None, "decision": None, "train_images": None}
    card = make_card(**bare, snapshot=None, dataset=None, seed=None, origin=FALLBACK)
    write_card(folder, card)
    assert "licence of the base model is unknown" in (folder / "README.md").read_text()
    assert origin_of_version(folder, fallback=make_card().origin) == FALLBACK
    assert set(card.as_metadata()) == {"base_model", "licence", "code_version", "code_commit"}


def test_card_prints_the_checkpoints_warnings(folder):
    write_card(folder, make_card(warnings=("no preprocessor_config.json: defaults; add it",)))
    assert "Warning: no preprocessor_config.json: defaults; add it." in (folder / "README.md").read_text()


def test_card_written_again_replaces_the_old_one(folder):
    for name in ("maskloop-1", "maskloop-2"):
        write_card(folder, make_card(name=name))
    text = (folder / "README.md").read_text()
    assert ("maskloop-1\n" in text, text.count("license:")) == (False, 1)


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        pytest.param("license: apache-2.0", "apache-2.0", id="plain"),
        pytest.param("license: other\nlicense_name: cc-by-nc", "cc-by-nc", id="named otherwise"),
        pytest.param("license: [mit, bsd]", "mit, bsd", id="several"),
        pytest.param("tags: [a]", "unknown", id="none"),
        pytest.param("license: [", "unknown", id="broken"),
        pytest.param("- a list", "unknown", id="no mapping"),
    ],
)
def test_origin_of_source_reads_the_licence(tmp_path, front, licence):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# model\n")
    assert origin_of_source("org/name", tmp_path) == ModelOrigin(base_model="org/name", licence=licence)


def test_origin_of_shipped_model_tells_no_path():
    shipped = ModelOrigin(base_model="tiny-mask2former", licence="apache-2.0")
    assert origin_of_source(str(BASE_MODEL), BASE_MODEL) == shipped


def test_origin_without_a_card_is_the_fallback(tmp_path):
    assert origin_of_version(tmp_path, fallback=FALLBACK) == FALLBACK
    assert origin_of_source("org/name", None).licence == "unknown"


def test_learning_settings_are_plain_and_hold_no_secret(settings):
    values = learning_settings(settings.model_copy(update={"seed": 5}))
    assert values["seed"] == 5
    assert {"train_batch", "gate_confidence", "holdout_fraction", "promotion"} <= set(values)
    assert not any(word in key for key in values for word in ("secret", "password", "url", "home"))
    assert json.loads(json.dumps(values)) == values


def test_code_version_names_a_version():
    assert code_version().version
    assert str(CodeVersion(version="1", commit=None)) == "1"


def test_learning_settings_labels_are_in_order(settings):
    labels = frozenset({"void", "edge", "cut"})
    assert learning_settings(settings.model_copy(update={"ignore_labels": labels}))["ignore_labels"] == [
        "cut",
        "edge",
        "void",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        (
            {"pool_images": 90},
            "It also learnt from 90 images that nobody has annotated, by what maskloop-7-v2",
        ),
        ({"pool_images": 90, "pool_note": "they gain"}, "was sure of on them. They gain."),
        ({"pool_note": "too few"}, "It learnt from no image that nobody has annotated: too few."),
    ],
    ids=["not asked for", "used", "used after a check", "not used"],
)
def test_write_card_says_what_became_of_unlabelled_images(folder, changes, words):
    write_card(folder, make_card(**changes))
    text = (folder / "README.md").read_text()
    assert ("nobody has annotated" in text) is (words is not None)
    assert words is None or words in text
