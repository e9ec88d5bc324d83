"""Brush masks to and from Label Studio's byte lists, against the SDK's converter and a Rust package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..harness.case import Budget, Case, Result, Skip
from ..harness.timing import side_by_side

__all__ = ["CASES"]

SIZES_HW = {"480p": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}
BUSY_BLUR_PX = 12.0  # the smaller, the more runs: at 1080p this gives 38,000
RUN_SIZES = [3, 4, 8, 16]
SEED = 3


def make_mask(kind: str, size_hw: tuple[int, int]) -> Any:
    """Return bool (H, W): "plain" is one ellipse, "busy" are hundreds of speckles."""
    import cv2
    import numpy as np

    height, width = size_hw
    if kind == "plain":
        drawn = np.zeros(size_hw, dtype=np.uint8)
        cv2.ellipse(drawn, (width // 2, height // 2), (width // 3, height // 4), 20, 0, 360, 1, -1)
        return drawn > 0
    noise = np.random.default_rng(SEED).standard_normal(size_hw).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), BUSY_BLUR_PX) > 0


def browser_stream(mask_hw: Any) -> list[int]:
    """Return the bytes of a mask with soft rims: as in a browser, every channel holds alpha from 0 to 255."""
    import cv2
    import numpy as np
    from label_studio_sdk.converter.brush import encode_rle

    alpha_hw = cv2.GaussianBlur(mask_hw.astype(np.uint8) * np.uint8(255), (3, 3), 0)
    rle: list[int] = encode_rle(np.repeat(alpha_hw.ravel(), 4))
    return rle


def run_encode(budget: Budget) -> list[Result]:
    """Time `encode_brush`."""
    sdk, rust = packages()
    import numpy as np

    from maskloop_studio.formats.brush import encode_brush

    results = []
    for variant, mask_hw in masks(budget):
        grey_hw = mask_hw.astype(np.uint8) * np.uint8(255)
        ways: dict[str, tuple[Callable[[], Any], float | None]] = {
            "label-studio-sdk": (lambda grey_hw=grey_hw: sdk.mask2rle(grey_hw), 20),
            "Rust package": (
                lambda grey_hw=grey_hw: rust.encode_rle(np.repeat(grey_hw.ravel(), 4), 8, RUN_SIZES),
                None,
            ),
        }
        for against, (reference, aim) in ways.items():
            pair = side_by_side(lambda mask_hw=mask_hw: encode_brush(mask_hw), reference, budget)
            theirs = list(pair.reference)
            assert pair.ours == theirs[: len(pair.ours)], "other bytes"
            assert theirs[len(pair.ours) :] in ([], [0]), "other padding"
            results.append(
                pair.result(
                    f"brush-encode/{variant} vs {against}",
                    against=against,
                    same="byte for byte, but for a last byte of padding",
                    aim=aim,
                    notes={"bytes": len(pair.ours)},
                )
            )
    return results


def run_decode(budget: Budget) -> list[Result]:
    """Time `decode_brush`; both ways end with the boolean mask."""
    sdk, rust = packages()
    import numpy as np

    from maskloop_studio.formats.brush import decode_brush, encode_brush

    results = []
    for variant, mask_hw in masks(budget):
        streams = {"ours": encode_brush(mask_hw), "browser": browser_stream(mask_hw)}
        for writer, rle in streams.items():
            for against, decode, aim in (
                ("label-studio-sdk", sdk.decode_rle, 70.0),
                ("Rust package", lambda rle: rust.decode_rle(rle, False), 1.0),
            ):
                pair = side_by_side(
                    lambda rle=rle, size_hw=mask_hw.shape: decode_brush(rle, size_hw),
                    lambda rle=rle, size_hw=mask_hw.shape, decode=decode: (
                        decode(rle).reshape(*size_hw, 4)[..., 3] >= 128
                    ),
                    budget,
                )
                assert np.array_equal(pair.ours, pair.reference), "other pixels"
                results.append(
                    pair.result(
                        f"brush-decode/{variant} by {writer} vs {against}",
                        against=against,
                        same="every pixel",
                        aim=aim,
                        notes={"bytes": len(rle)},
                    )
                )
    return results


def masks(budget: Budget) -> list[tuple[str, Any]]:
    """Return the variants' names and masks."""
    sizes = {"480p": SIZES_HW["480p"]} if budget.quick else SIZES_HW
    return [
        (f"{name} {kind}", make_mask(kind, size))
        for name, size in sizes.items()
        for kind in ("plain", "busy")
    ]


def packages() -> tuple[Any, Any]:
    """Return the two packages that do the same."""
    try:
        import label_studio_brush_rle_rs as rust
        from label_studio_sdk.converter import brush as sdk
    except ImportError as exc:
        raise Skip(f"missing: {exc}") from exc
    return sdk, rust


CASES = [
    Case(name="brush-decode", summary="byte lists to masks", run=run_decode),
    Case(name="brush-encode", summary="masks to byte lists", run=run_encode),
]
