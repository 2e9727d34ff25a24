"""Optimizers that a bundle can train with; without torch, for the command line."""

NAMES = ("adam", "adamw", "sgd")
