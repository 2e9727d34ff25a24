"""A run whose processes are killed at random moments, compared byte for byte with one that was left alone."""
