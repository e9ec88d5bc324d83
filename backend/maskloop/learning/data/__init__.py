"""Corrections as training data: which count, how they are split, drawn from and varied."""
