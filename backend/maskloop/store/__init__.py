"""Annotations, corrections, jobs and scores in a relational database, and a cache of images."""
