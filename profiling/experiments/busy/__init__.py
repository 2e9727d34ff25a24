"""What a core that something else wants costs a training."""
