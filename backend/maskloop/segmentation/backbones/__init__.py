"""Backbones that transformers does not bring along."""
