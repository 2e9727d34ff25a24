"""What a training step costs a device."""
