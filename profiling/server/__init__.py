"""What a run costs its server, and what it survives."""
