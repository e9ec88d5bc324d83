"""Where model versions live: folders with a number, of which one per name is the champion."""

from __future__ import annotations

from maskloop.learning.registry_contract import ModelRegistry
from maskloop.learning.registry_memory import MemoryRegistry
from maskloop.learning.registry_mlflow import MlflowRegistry

__all__ = ["MemoryRegistry", "MlflowRegistry", "ModelRegistry"]
