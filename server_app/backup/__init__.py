"""A run in one archive: taken beside its running server, and made a run again elsewhere."""
