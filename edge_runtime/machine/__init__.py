"""What a device takes of its machine: memory, battery, heat."""
