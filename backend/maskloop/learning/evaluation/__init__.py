"""How good predictions are: tallies of each image and class, and every number that follows from them."""
