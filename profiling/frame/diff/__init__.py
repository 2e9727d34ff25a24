"""``gkt profile diff``: what changed between two documents of one kind, with noise taken into account."""
