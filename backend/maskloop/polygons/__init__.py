"""Masks as polygons and back: outlines, their simplification, what they fill, borders that are shared."""
