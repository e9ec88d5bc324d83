"""Active learning: the choice of the next image to annotate."""
