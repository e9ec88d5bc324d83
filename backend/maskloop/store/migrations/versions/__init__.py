"""One module a step; the number in its name is the form it leads to."""
