"""How alike two images are: PSNR, SSIM (Wang et al. 2004) and GMSD (Xue et al. 2014), on batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the paper: window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, values in 0..1.
WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# Of Xue et al.: their constant, of values in 0..255, and how much red, green and blue weigh in what is light.
_C_GRADIENT, _LIGHT = 170 / 255**2, (0.2989, 0.5870, 0.1140)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in decibels; infinite where they are equal.

    Args:
        images: ``[N, C, H, W]`` in 0..1.
        others: The same shape.

    Returns:
        ``[N]``.
    """
    error = (images - others).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Mean structural similarity of each pair, over channels and all whole windows; 1 where they are equal.

    Images smaller than the window of 11 pixels get the largest odd window that fits.

    Args:
        images: ``[N, C, H, W]`` in 0..1.
        others: The same shape.

    Returns:
        ``[N]``.
    """
    side = min(WINDOW, images.shape[2], images.shape[3])
    side -= 1 - side % 2
    offsets = torch.arange(side, dtype=images.dtype, device=images.device) - (side - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = torch.outer(weights, weights) / weights.sum().square()
    channels = images.shape[1]
    kernel = window.expand(channels, 1, side, side)

    def local_mean(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, groups=channels)

    mean_a, mean_b = local_mean(images), local_mean(others)
    var_a = local_mean(images.square()) - mean_a.square()
    var_b = local_mean(others.square()) - mean_b.square()
    covariance = local_mean(images * others) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def gmsd(images: Tensor, others: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation of each pair: 0 where they are equal, more where one looks bad.

    Of the measures that need no trained network, one of those that agree best with what people see. As in the
    paper the images are halved first.

    Args:
        images: ``[N, 3, H, W]`` in 0..1, of 4 pixels or more.
        others: The same shape.

    Returns:
        ``[N]``.
    """
    similarity = _gradient_similarity(_light(images), _light(others))
    return similarity.flatten(1).std(dim=1, unbiased=False)


def _light(images: Tensor) -> Tensor:
    weights = torch.tensor(_LIGHT, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return F.avg_pool2d((images * weights).sum(dim=1, keepdim=True), 2)


def _gradient_similarity(one: Tensor, other: Tensor) -> Tensor:
    along = torch.tensor([1.0, 0.0, -1.0], dtype=one.dtype, device=one.device).expand(3, 3) / 3
    kernels = torch.stack([along, along.t()])[:, None]

    def magnitude(light: Tensor) -> Tensor:
        return F.conv2d(light, kernels).square().sum(dim=1).sqrt()

    ours, theirs = magnitude(one), magnitude(other)
    return (2 * ours * theirs + _C_GRADIENT) / (ours.square() + theirs.square() + _C_GRADIENT)
