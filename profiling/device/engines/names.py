"""Names of what ``gkt profile engines`` compares; imports nothing."""

from __future__ import annotations

# What the targets are for.
NETWORK = "resnet8"
PYTORCH = "pytorch"
CHANNELS_LAST = "pytorch_channels_last"
# By name of the candidate: the network.
FULL_STEPS = {"pytorch_resnet56": "resnet56", "pytorch_resnet110": "resnet110"}
SGEMM = ("numpy", "torch")
EXTRACTED = ("portable", PYTORCH, CHANNELS_LAST)

# What the portable step over another may be: at most, and what we aim at (None where nothing is said).
TARGETS: dict[str, tuple[float | None, float | None]] = {
    "portable_over_ort_training": (0.55, 0.40),
    "portable_over_pytorch_channels_last": (0.80, 0.60),
    "portable_over_pytorch_resnet110": (0.055, 0.03),
    "portable_over_sgemm_bound": (None, 1.5),
    "extraction_over_pytorch": (0.5, None),
}
MEMORY_TARGETS_BYTES = {64: (245_000_000, 180_000_000), 16: (115_000_000, None)}
