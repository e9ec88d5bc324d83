"""The models that come with maskloop, by the names that MASKLOOP_MODEL takes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ANY_OBJECT", "BASE_MODEL", "BASE_ONEFORMER", "BASE_PHOTOS", "SHIPPED", "shipped_model"]

MODELS_DIR = Path(__file__).parent / "models"
BASE_MODEL = MODELS_DIR / "tiny-mask2former"
BASE_ONEFORMER = MODELS_DIR / "tiny-oneformer"
BASE_PHOTOS = MODELS_DIR / "tiny-photos"
ANY_OBJECT = "object"  # the only class of tiny-photos: it tells objects from their surroundings
SHIPPED = {folder.name: folder for folder in (BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS)}


def shipped_model(name: str) -> str:
    """Return the folder of a shipped model, such as "tiny-photos"; any other name as it is.

    A folder of that name in the present one wins: it is the user's own.
    """
    return name if name not in SHIPPED or Path(name).exists() else str(SHIPPED[name])
