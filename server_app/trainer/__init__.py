"""The process that trains: claims a round, trains on it, publishes soft labels."""
