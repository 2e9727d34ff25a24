"""How to measure: in a fresh process, on pinned cores, with times robust to what else a machine does."""
