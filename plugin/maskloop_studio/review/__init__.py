"""Bringing a review of annotations into Label Studio."""
