"""Many devices at one server at once, and how much memory its processes take meanwhile."""
