"""Train the server network in a process of its own: claim a round, train on it, publish soft labels."""
