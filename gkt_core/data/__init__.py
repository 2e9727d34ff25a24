"""Commands that the ground floor registers."""
