"""Corrections as training data: selection, splits, sampling and augmentation."""
