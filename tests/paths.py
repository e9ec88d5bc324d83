"""Where this checkout lies, and the real material beside it, which may be absent."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"  # real images and recorded traffic
