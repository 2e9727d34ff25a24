"""What ``gkt doctor`` looks at on a device: its engine, its folder, the way to the server."""
