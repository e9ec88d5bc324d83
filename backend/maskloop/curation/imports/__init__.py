"""Folders of other tools -> images with their segments."""
