"""Which classes are things, whose objects are counted, and which are stuff: one segment an image.

Published checkpoints rarely name their things; the class lists of the data sets they were trained on do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["ClassKinds", "published_stuff", "stuff_classes"]

# The share of a data set's stuff names that a checkpoint must have to be taken for one of that data set.
MIN_SHARE = 0.9


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(","))


COCO_STUFF = _names(
    "banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, flower, fruit, "
    "gravel, house, light, mirror-stuff, net, pillow, platform, playingfield, railroad, river, road, "
    "roof, sand, sea, shelf, snow, stairs, tent, towel, wall-brick, wall-stone, wall-tile, wall-wood, "
    "water-other, window-blind, window-other, tree-merged, fence-merged, ceiling-merged, "
    "sky-other-merged, cabinet-merged, table-merged, floor-other-merged, pavement-merged, mountain-merged, "
    "grass-merged, dirt-merged, paper-merged, food-other-merged, building-other-merged, rock-merged, "
    "wall-other-merged, rug-merged"
)
ADE20K_STUFF = _names(
    "wall, building, sky, floor, tree, ceiling, road, grass, sidewalk, earth, mountain, plant, water, "
    "house, sea, rug, field, rock, base, sand, skyscraper, grandstand, path, runway, stairway, river, "
    "bridge, blind, hill, bar, hovel, tower, dirt track, land, escalator, buffet, poster, stage, "
    "conveyer belt, canopy, pool, falls, tent, cradle, tank, lake, blanket, pier, crt screen, shower"
)
ADE20K_OTHER_NAMES = MappingProxyType({"swimming pool": "pool", "waterfall": "falls"})
CITYSCAPES_STUFF = _names(
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky"
)
CITYSCAPES_THINGS = _names("person, rider, car, truck, bus, train, motorcycle, bicycle")


@dataclass(frozen=True, kw_only=True)
class ClassKinds:
    """What is known of things and stuff outside the checkpoint; all empty where nothing is."""

    config_stuff: frozenset[str] = frozenset()  # labels that the project's label config marks as stuff
    config_things: frozenset[str] = frozenset()  # and as things
    setting: frozenset[str] = frozenset()  # stuff by MASKLOOP_STUFF_LABELS
    # label -> True where annotators draw one region an image, False where they draw many
    observed: Mapping[str, bool] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        both = self.config_stuff & self.config_things
        if both:
            raise ValueError(
                f"ClassKinds: expected each label as stuff or as thing, got two for {sorted(both)}"
            )
        object.__setattr__(self, "observed", dict(self.observed))  # a copy: the caller may change its own


def stuff_classes(
    labels: Sequence[str],
    thing_ids: Collection[int],
    *,
    undeclared_ids: Collection[int] = (),
    kinds: ClassKinds = ClassKinds(),  # frozen
) -> frozenset[str]:
    """Return the labels of stuff: panoptic segmentation gives each one segment an image.

    The first source that names a label decides: the label config, MASKLOOP_STUFF_LABELS, the checkpoint (its
    files, or the class list of the data set that its labels are from), and for labels that none of these
    names what annotators do. A label that no source names is a thing.

    Args:
        labels: the checkpoint's class names.
        thing_ids: positions of the classes that the checkpoint takes for things.
        undeclared_ids: positions of classes of which the checkpoint's files say neither.
        kinds: all sources but the checkpoint.
    """
    found = set()
    for index, label in enumerate(labels):
        if label in kinds.config_things:
            continue
        if label in kinds.config_stuff or label in kinds.setting:
            found.add(label)
        elif index in undeclared_ids:
            if kinds.observed.get(label, False):
                found.add(label)
        elif index not in thing_ids:
            found.add(label)
    return frozenset(found)


def published_stuff(labels: Sequence[str]) -> frozenset[str] | None:
    """Return which labels are stuff, where they are those of COCO panoptic, ADE20K or Cityscapes; else None.

    Names are compared without case, and of "road, route" only "road".

    Source:
        Kirillov et al., "Panoptic Segmentation", CVPR 2019, for COCO's 53 stuff classes; the panoptic
        categories of ADE20K (50) and Cityscapes (11) as in facebookresearch/Mask2Former.
    """
    short = {label: _short(label) for label in labels}
    names = frozenset(short.values())
    for stuff, things in ((COCO_STUFF, ()), (ADE20K_STUFF, ()), (CITYSCAPES_STUFF, CITYSCAPES_THINGS)):
        wanted = stuff | frozenset(things)
        if len(names & wanted) >= MIN_SHARE * len(wanted):
            return frozenset(label for label, name in short.items() if name in stuff)
    return None


def _short(label: str) -> str:
    name = label.split(",")[0].strip().lower()
    return ADE20K_OTHER_NAMES.get(name, name)
