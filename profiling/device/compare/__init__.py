"""Edge networks beside the networks that they help to train."""
