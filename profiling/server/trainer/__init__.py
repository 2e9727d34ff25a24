"""The server's trainer: its speed beside a bare PyTorch loop, and its memory as a run grows."""
