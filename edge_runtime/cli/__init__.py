"""The commands gkt edge and gkt edge run."""
