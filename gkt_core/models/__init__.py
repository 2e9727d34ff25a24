"""Model files, and what each says of itself."""
