"""A snapshot -> a folder that other tools read."""
