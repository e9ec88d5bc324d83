"""Clicks and boxes -> a segment, from features that were computed once for an image."""
