"""What the demo shows: made-up images, or a folder in COCO form; with what is really on each of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from maskloop.errors import ImageError
from maskloop.types import RgbImage, Segment

__all__ = ["DemoImage", "DemoMaterial", "coco_material", "made_up_material"]

SIZE_HW = (240, 320)
FIRST_SEED = 700_000  # far from the seeds that the base model was trained and judged on
POLYGON_LABELS = frozenset({"square", "triangle"})


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoImage:
    """An image file and the truth about it."""

    name: str
    data: bytes
    segments: tuple[Segment, ...]
    size_hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DemoMaterial:
    """What is imported into Label Studio."""

    images: tuple[DemoImage, ...]
    label_config: str


def made_up_material(count: int) -> DemoMaterial:
    """Return made-up images of a domain that the base model was not trained on.

    Args:
        count: how many images.
    """
    from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image

    images = []
    for index in range(count):
        made = make_image(FIRST_SEED + index, size_hw=SIZE_HW, domain="shifted")
        images.append(
            DemoImage(
                name=f"shapes-{index:04d}.png",
                data=_png(made.image_hwc),
                segments=made.segments,
                size_hw=SIZE_HW,
            )
        )
    return DemoMaterial(images=tuple(images), label_config=demo_label_config(SHAPE_CLASSES))


def coco_material(folder: Path, *, limit: int) -> DemoMaterial:
    """Return the images of a folder with `images/` and `instances.json`.

    Raises:
        MaskloopError: the folder is not of that form, or holds fewer than two images.
    """
    from maskloop.lab.synthetic.coco import read_coco

    found = [image for image in read_coco(folder) if image.segments][:limit]
    if len(found) < 2:
        raise ImageError(
            f"--coco {folder}",
            expected="at least two annotated images",
            got=str(len(found)),
            remedy="check its instances.json",
        )
    labels = sorted({segment.label for image in found for segment in image.segments})
    images = tuple(
        DemoImage(
            name=image.path.name,
            data=image.path.read_bytes(),
            segments=image.segments,
            size_hw=image.size_hw,
        )
        for image in found
    )
    return DemoMaterial(images=images, label_config=demo_label_config(labels))


def demo_label_config(labels: tuple[str, ...] | list[str]) -> str:
    """Return a label config with brush and polygon controls; shapes with straight edges get polygons."""
    from xml.sax.saxutils import quoteattr

    colours = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
    polygons = [label for label in labels if label in POLYGON_LABELS]
    brushes = [label for label in labels if label not in POLYGON_LABELS]
    shade = {label: colours[index % len(colours)] for index, label in enumerate(labels)}

    def control(tag: str, name: str, names: list[str]) -> str:
        rows = "".join(f'<Label value={quoteattr(label)} background="{shade[label]}"/>' for label in names)
        return f'<{tag} name="{name}" toName="image">{rows}</{tag}>' if names else ""

    return (
        '<View><Image name="image" value="$image" zoom="true"/>'
        f"{control('BrushLabels', 'brush', brushes)}{control('PolygonLabels', 'polygon', polygons)}</View>"
    )


def _png(image_hwc: RgbImage) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_hwc).save(buffer, format="PNG")
    return buffer.getvalue()
