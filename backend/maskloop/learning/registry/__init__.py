"""The model registry: numbered versions of each model, of which one is the champion."""

from __future__ import annotations

from maskloop.learning.registry.base import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, rollback_line
from maskloop.learning.registry.mlflow import MlflowRegistry

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "SHADOW",
    "MlflowRegistry",
    "ModelRegistry",
    "rollback_line",
]
