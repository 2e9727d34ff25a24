"""The commands gkt export, gkt verify and gkt deploy."""
