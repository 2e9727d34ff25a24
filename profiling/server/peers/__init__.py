"""Peers that say nothing, or next to nothing: an honest device is answered all the same."""
