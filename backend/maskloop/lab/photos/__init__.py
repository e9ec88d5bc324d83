"""Compositions of objects cut from photos of single things: what a class-agnostic base model learns from."""
