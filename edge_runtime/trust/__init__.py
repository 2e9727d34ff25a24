"""What a device checks of what a server gives it: it believes nobody."""
