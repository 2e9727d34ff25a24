"""What training costs a device, measured; looks at all other packages, and nobody imports it."""

from profiling.frame.machine import describe_machine

__all__ = ["describe_machine"]
