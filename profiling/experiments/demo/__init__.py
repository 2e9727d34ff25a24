"""``gkt demo``: a whole run on one machine, with the real processes, measured and reported."""
