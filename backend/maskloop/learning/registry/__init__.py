"""Where model versions live: folders with a number, of which one per name is the champion."""

from __future__ import annotations

from maskloop.learning.registry.base import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, way_back
from maskloop.learning.registry.mlflow import MlflowRegistry

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "SHADOW",
    "MlflowRegistry",
    "ModelRegistry",
    "way_back",
]
