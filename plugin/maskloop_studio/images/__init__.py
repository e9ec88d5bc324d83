"""Fetches the images that tasks point at."""
