"""Decide what happens next in a run, by pure functions of its state: no Flask, no PyTorch, no database."""
