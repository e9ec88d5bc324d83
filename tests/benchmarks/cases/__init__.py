"""One module per part of maskloop that has to be fast; each names its benchmarks in `CASES`."""
