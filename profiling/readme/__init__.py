"""The tables of the documentation, written from profiling/results."""
