"""Where this checkout lies, and the real material beside it, which may be absent."""

import os
from pathlib import Path

__all__ = ["ML_HOST_ENV", "REPOSITORY", "SHARED", "STUDIO_ENV"]

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"  # real images and recorded traffic
STUDIO_ENV = Path(os.environ.get("MASKLOOP_STUDIO_ENV") or REPOSITORY / ".venv-studio")
ML_HOST_ENV = REPOSITORY / ".venv-label-studio-ml"
