from dataclasses import replace

import numpy as np
import pytest

from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.training.recipe import FinetuneRecipe, choose_recipe, recipe_for
from maskloop.segmentation.checkpoint import with_labels
from maskloop.settings import Settings
from maskloop.shipped import ANY_OBJECT


@pytest.fixture
def chosen(settings):
    def choose(images=32, objects=90, classes=3, new_classes=0, parameters=0, **changes):
        changed = Settings(home=settings.home, **changes)
        return choose_recipe(
            images, objects, classes, changed, new_classes=new_classes, parameters=parameters
        )

    return choose


def test_choose_recipe_more_images_more_steps_within_bounds(chosen):
    steps = [chosen(images=images, objects=3 * images).steps for images in (1, 8, 32, 128, 2000, 10**6)]
    assert steps == [50, 50, 198, 396, 1565, 5000]


def test_choose_recipe_new_classes_take_longer_by_their_share(chosen):
    steps = [chosen(images=128, objects=360, new_classes=new).steps for new in (0, 1, 3)]
    assert steps == [396, 528, 792]


def test_choose_recipe_few_images_of_new_classes_take_at_least_600_steps(chosen):
    steps = [chosen(images=images, objects=3 * images, new_classes=3).steps for images in (1, 12, 128, 300)]
    assert steps == [600, 600, 792, 1212]
    assert [chosen(images=12, objects=36, new_classes=new).steps for new in (0, 1, 2)] == [60, 267, 433]


@pytest.mark.parametrize(
    ("rounds", "classes", "steps", "paste"),
    [
        pytest.param([], ["circle", "square"], 50, 0.0, id="the base's own classes"),
        pytest.param([["circle", "square"]], ["circle", "square"], 50, 0.0, id="learnt again"),
        pytest.param([], ["moon", "star"], 600, 0.5, id="new"),
        pytest.param([["moon", "star"]], ["moon", "star"], 600, 0.5, id="added a round ago"),
        pytest.param([["moon"], ["star", "moon"]], ["moon", "star"], 600, 0.5, id="added one by one"),
        pytest.param([["object"]], ["nucleus"], 600, 0.5, id="one class that is no base's"),
        pytest.param([["circle", "moon"]], ["circle", "moon"], 350, 0.5, id="one of two added"),
    ],
)
def test_recipe_for_classes_stay_new_in_later_rounds(settings, rounds, classes, steps, paste):
    champion = build_tiny_mask2former(("circle", "square"), seed=0)
    for labels in rounds:
        champion = with_labels(champion, labels, seed=0)
    example = TrainingExample(image=np.zeros((8, 8, 3), np.uint8), segments=(), key="image")
    recipe = recipe_for(champion, [example] * 4, classes, settings)
    assert (recipe.steps, recipe.augmentation.paste) == (steps, paste)


@pytest.mark.parametrize(
    ("classes", "steps", "paste", "rate"),
    [
        pytest.param(["object"], 50, 0.0, 1e-4, id="mapped"),
        pytest.param(["nucleus"], 50, 0.0, 1e-4, id="the only label names objects"),
        pytest.param(["apple", "pear"], 600, 0.5, 4e-4, id="two labels are to be told apart"),
    ],
)
def test_recipe_for_a_base_of_objects(settings, classes, steps, paste, rate):
    base = build_tiny_mask2former((ANY_OBJECT,), seed=0)
    example = TrainingExample(image=np.zeros((8, 8, 3), np.uint8), segments=(), key="image")
    recipe = recipe_for(base, [example] * 4, classes, settings)
    assert (recipe.steps, recipe.augmentation.paste, recipe.learning_rate) == (steps, paste, rate)


@pytest.mark.parametrize(
    ("new_classes", "parameters", "named", "share"),
    [
        (3, 900_000, None, 0.5),
        (2, 900_000, None, 0.5),
        (1, 900_000, None, 0.0),
        (0, 900_000, None, 0.0),
        (3, 47_000_000, None, 0.0),
        (3, 900_000, 0.0, 0.0),
        (0, 47_000_000, 0.25, 0.25),
    ],
)
def test_choose_recipe_pastes_objects_where_most_classes_are_new(
    chosen, new_classes, parameters, named, share
):
    recipe = chosen(classes=3, new_classes=new_classes, parameters=parameters, augment_paste=named)
    assert recipe.augmentation.paste == share


@pytest.mark.parametrize(
    ("images", "new_classes", "parameters", "rate", "factor", "frozen"),
    [
        pytest.param(32, 0, 900_000, 4e-4, 1.0, False, id="small"),
        pytest.param(100, 0, 900_000, 4e-4, 1.0, False, id="small, many images"),
        pytest.param(16, 0, 900_000, 2e-4, 1.0, False, id="small, few images"),
        pytest.param(8, 0, 900_000, 1e-4, 1.0, False, id="small, eight images"),
        pytest.param(4, 0, 900_000, 1e-4, 1.0, False, id="small, four images"),
        pytest.param(1, 0, 900_000, 1e-4, 1.0, False, id="small, one image"),
        pytest.param(4, 2, 900_000, 2e-4, 1.0, False, id="small, half of the classes new"),
        pytest.param(4, 4, 900_000, 4e-4, 1.0, False, id="small, new classes"),
        pytest.param(8, 0, 47_000_000, 1e-4, 0.1, True, id="large, few images"),
        pytest.param(8, 4, 47_000_000, 1e-4, 0.1, True, id="large, new classes"),
        pytest.param(100, 0, 47_000_000, 1e-4, 0.1, False, id="large"),
    ],
)
def test_choose_recipe_rates_follow_model_and_data(
    chosen, images, new_classes, parameters, rate, factor, frozen
):
    recipe = chosen(images=images, classes=4, new_classes=new_classes, parameters=parameters)
    assert recipe.learning_rate == pytest.approx(rate)
    assert (recipe.backbone_factor, recipe.freeze_backbone) == (factor, frozen)


@pytest.mark.parametrize(
    ("data", "named", "batch", "steps"),
    [
        pytest.param({"images": 4}, {}, 8, 50, id="four images"),
        pytest.param({"images": 16}, {}, 8, 70, id="sixteen images"),
        pytest.param({"images": 17}, {}, 4, 144, id="more images"),
        pytest.param({"images": 4, "guessed": 100}, {}, 4, 500, id="many with pseudo-labels"),
        pytest.param({"images": 4, "new_classes": 1}, {}, 4, 267, id="a new class"),
        pytest.param({"images": 4, "parameters": 47_000_000}, {}, 4, 100, id="a large model"),
        pytest.param({"images": 4}, {"train_batch": 4}, 4, 100, id="the batch is named"),
        pytest.param({"images": 4}, {"train_batch": 2}, 2, 100, id="a smaller batch is named"),
        pytest.param({"images": 4}, {"train_steps": 30}, 4, 30, id="the steps are named"),
    ],
)
def test_choose_recipe_few_images_of_known_classes_take_fewer_larger_steps(
    settings, data, named, batch, steps
):
    amount = {"images": 4, "objects": 12, "classes": 3} | data
    recipe = choose_recipe(settings=Settings(home=settings.home, **named), **amount)
    assert (recipe.batch, recipe.steps) == (batch, steps)


def test_choose_recipe_images_with_pseudo_labels_raise_the_rate(settings):
    few, pooled = (choose_recipe(4, 12, 3, settings, guessed=guessed) for guessed in (0, 100))
    assert few.learning_rate < pooled.learning_rate == 4e-4


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"train_steps": 7}, "steps", 7),
        ({"learning_rate": 2e-3}, "learning_rate", 2e-3),
        ({"backbone_rate": 0.5}, "backbone_factor", 0.5),
        ({"backbone_rate": 0.0}, "freeze_backbone", True),
        ({"train_batch": 2}, "batch", 2),
        ({"train_minutes": 3.5}, "minutes", 3.5),
        ({"train_deleted": 3.0}, "deleted_weight", 3.0),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_choose_recipe_settings_win(chosen, changes, field, expected):
    assert getattr(chosen(**changes), field) == expected


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"backbone_factor": 2.0}, {"minutes": 0.0}, {"clip": 0.0}], ids=str
)
def test_finetune_recipe_impossible_raises(change):
    with pytest.raises(ValueError, match="FinetuneRecipe"):
        replace(FinetuneRecipe(), **change)
