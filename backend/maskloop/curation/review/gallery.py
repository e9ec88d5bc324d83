"""A review as one HTML file: crops with the region and the proposal, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from maskloop.curation.review.suspicion import Suspicion
from maskloop.masks import paste_segment
from maskloop.types import RgbImage, Segment

__all__ = ["Card", "draw_crop", "gallery_html"]

EDGE = 220  # pixels: the longer side of a crop as it is shown
MARGIN = 0.35  # of the longer side of what is shown, around it
DRAWN, PROPOSED = (214, 60, 60), (40, 150, 70)  # RGB
STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem;background:#fff;color:#1c1c1c}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:1rem}
figure{margin:0;padding:.8rem;border:1px solid #d5d5d5;border-radius:6px}
img{display:block;width:100%;height:220px;object-fit:contain;background:#f1f1f1}
b{display:block;margin-top:.5rem}i{font-style:normal;padding:0 .3em;color:#fff;border-radius:3px}
.drawn{background:#d63c3c}.seen{background:#28964a}
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """One suspicion with what is shown of it."""

    number: int  # of the suspicion, for `--right`
    suspicion: Suspicion
    read_image: Callable[[], RgbImage]  # read when it is shown
    region: Segment | None  # as drawn; None: missing
    where: str  # the task in words
    link: str | None = None  # to the task


def gallery_html(title: str, cards: Iterable[Card]) -> Iterator[str]:
    """Yield the parts of a page, so that no more than one crop is in memory.

    Args:
        title: of the page.
        cards: in the order in which they are shown.
    """
    yield (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        '<p>Red: <i class="drawn">as annotated</i>, green: <i class="seen">as a model saw it that had not '
        "learnt from the image</i>. The likeliest error comes first.</p><main>"
    )
    for card in cards:
        yield _figure(card)
    yield "</main></html>\n"


def _figure(card: Card) -> str:
    one = card.suspicion
    label = "" if card.region is None else f", drawn as {card.region.label}"
    seen = "" if one.proposal is None else f", seen as {one.proposal.label} ({one.proposal.score:.2f})"
    where = html.escape(card.where)
    if card.link is not None:
        where = f'<a href="{html.escape(card.link, quote=True)}">{where}</a>'
    crop = draw_crop(card.read_image(), drawn=card.region, proposed=one.proposal)
    picture = base64.b64encode(crop).decode()
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{picture}">'
        f"<b>{card.number}: {html.escape(str(one.kind))}, {one.score:.0%}</b>{where}"
        f"{html.escape(label + seen)}</figure>"
    )


def draw_crop(image_hwc: RgbImage, *, drawn: Segment | None, proposed: Segment | None) -> bytes:
    """Return a JPEG of the place of one segment or two, with their outlines drawn.

    Args:
        image_hwc: uint8 (H, W, 3), upright.
        drawn: as annotated, in red; None: nothing is.
        proposed: as a model sees it, in green.
    """
    shown = [one for one in (drawn, proposed) if one is not None]
    boxes_n4 = np.array([one.box_yxyx for one in shown])
    (top, left), (bottom, right) = boxes_n4[:, :2].min(axis=0), boxes_n4[:, 2:].max(axis=0)
    margin = int(MARGIN * max(bottom - top, right - left)) + 4
    height, width = image_hwc.shape[:2]
    rows = slice(max(0, top - margin), min(height, bottom + margin))
    columns = slice(max(0, left - margin), min(width, right + margin))
    scale = EDGE / max(rows.stop - rows.start, columns.stop - columns.start)
    size_wh = (
        max(1, round((columns.stop - columns.start) * scale)),
        max(1, round((rows.stop - rows.start) * scale)),
    )
    crop_hwc = cv2.resize(np.ascontiguousarray(image_hwc[rows, columns]), size_wh)
    for segment, colour in ((drawn, DRAWN), (proposed, PROPOSED)):
        if segment is None:
            continue
        mask_hw = paste_segment(segment, (height, width))[rows, columns].astype(np.uint8)
        large_hw = cv2.resize(mask_hw, size_wh, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(large_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(crop_hwc, outlines, -1, colour, 2)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(crop_hwc, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )
    return bytes(encoded)
