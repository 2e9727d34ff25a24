"""The commands gkt serve and gkt clients."""
