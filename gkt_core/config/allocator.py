"""Settings of the C library's allocator with which PyTorch is fastest on the CPU: freed memory stays."""

from __future__ import annotations

# Environment of a process that is started to train; values are bytes. Large buffers otherwise go back to the
# system after each step and fault in again.
TRAINING_ALLOCATOR = {
    "MALLOC_TOP_PAD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
