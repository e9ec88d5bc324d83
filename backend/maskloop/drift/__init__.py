"""Whether new images are like those that a version was made for: conformal tests that never stop."""
