"""``gkt profile privacy``: how much of an image the uploaded features give away."""
