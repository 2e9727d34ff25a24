"""Whole runs: demo, simulation, the paper's tables. Here because nothing else may import all packages."""
