"""What a device keeps between two starts."""
