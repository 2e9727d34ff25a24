"""Levels of quantised features on the wire: packed into bytes, and coded in as many bits as they tell."""
