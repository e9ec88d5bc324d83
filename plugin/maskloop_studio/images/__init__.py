"""Fetching the image files that tasks point at, within bounds of time, bytes and addresses."""
