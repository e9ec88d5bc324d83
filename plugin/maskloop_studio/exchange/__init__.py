"""Data sets of Label Studio projects: freezing one, exporting it, taking one in."""
