"""``gkt simulate``: any algorithm over simulated devices, with metrics, curves and resume."""
