"""``gkt profile traffic``: bytes by formula, and beside them the bytes of a real run."""
