"""``gkt doctor``: what is wrong where gkt is installed, and what to do about it; a check a function."""
