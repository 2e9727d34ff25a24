"""Logistic regression on a device's pixels: what needs no network at all, to compare with."""

from __future__ import annotations

from pathlib import Path

from gkt_core.data.private_data import load_private_data, load_test_data


def logistic_regression_accuracy(data: Path, test: Path) -> float:
    """Fit a device's training images and give the accuracy (0..1) on the test images.

    Args:
        data: The device's private file.
        test: The test file.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    training, tested = load_private_data(data).train, load_test_data(test)
    pixels = [each.images.reshape(len(each), -1) / 255 for each in (training, tested)]
    model = LogisticRegression(max_iter=2000).fit(pixels[0], training.labels)
    return float(model.score(pixels[1], tested.labels))
