"""Snapshots: the rows of a data set, frozen and named by their content."""
