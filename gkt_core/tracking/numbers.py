"""What tools are told of a round, by the same names from a server and from a simulation."""

from __future__ import annotations

from gkt_core.wire.protocol import RoundMetrics


def round_numbers(
    *, accuracy: float, loss: float, train_loss: float, upload_bytes: int, download_bytes: int
) -> dict[str, float]:
    """Name what every run has of a round.

    Args:
        accuracy: On the devices' validation samples, 0..1.
        loss: Cross entropy on them.
        train_loss: Of the round's last epoch.
        upload_bytes: That devices sent.
        download_bytes: That devices took.
    """
    return {
        "validation/accuracy": accuracy,
        "validation/loss": loss,
        "train/loss": train_loss,
        "bytes/upload": float(upload_bytes),
        "bytes/download": float(download_bytes),
    }


def served_numbers(metrics: RoundMetrics) -> dict[str, float]:
    """Name what a server knows of a finished round; nothing of a single device is in it."""
    return {
        **round_numbers(
            accuracy=metrics.validation_accuracy,
            loss=metrics.validation_loss,
            train_loss=metrics.train_loss,
            upload_bytes=metrics.upload_bytes,
            download_bytes=metrics.download_bytes,
        ),
        "train/accuracy": metrics.train_accuracy,
        "devices/loss": metrics.edge_loss,
        "devices/accuracy": metrics.edge_accuracy,
        "seconds/round": metrics.seconds,
        "seconds/devices": metrics.edge_seconds,
        "seconds/server": metrics.server_seconds,
        "samples_per_second/server": metrics.server_samples_per_second,
        "samples_per_second/devices": metrics.edge_images_per_second,
    }
