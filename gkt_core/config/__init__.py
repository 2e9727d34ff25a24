"""Settings of a run, and how they become options of a command."""
