"""Algorithm 1 without torch: what a device does in a round, and what a server reads."""
