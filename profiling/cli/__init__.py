"""The commands gkt profile, gkt profile show and gkt profile all."""
