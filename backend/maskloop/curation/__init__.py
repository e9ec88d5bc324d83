"""Data sets for people: frozen snapshots, exports, data sets of elsewhere, labels that are probably wrong."""
