"""What a peer's connection costs: what it is sent without a thread, and how many there may be."""
