"""The residual networks of Fig. 1(b) and Tables 7 to 9: blocks, stem, stages.

Only the Bottleneck variant reproduces the paper's parameter counts; ResNet-4 and ResNet-6 use BasicBlocks,
as section 4.4 says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkt_core.networks import EXPANSION, STEM_KERNELS, TAP_CHANNELS, EdgeLayout, ServerLayout


class FeatureExtractor(nn.Module):
    """The device's half of the final model: convolution 3x3, batch norm, ReLU; 464 parameters.

    Its output is the tap: ``features [N, 16, S, S]``, non-negative. With a stride, for large images, they are
    ``[N, 16, S / stride, S / stride]``, and the kernel is as wide as sees every pixel with its neighbours: 5
    for a stride of 2, 7 for 4.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        kernel_size = STEM_KERNELS[stride]
        self.conv = nn.Conv2d(
            3, TAP_CHANNELS, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(TAP_CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``[N, 3, S, S]`` to features ``[N, 16, S, S]``."""
        features: Tensor = torch.relu(self.bn(self.conv(images)))
        return features


def mirror(x: Tensor) -> Tensor:
    """Mirror ``[N, C, H, W]``, the columns the other way round."""
    if not torch.onnx.is_in_onnx_export():
        return x.flip(3)
    # A flip becomes a slice with a negative step, whose gradient ONNX Runtime's training refuses.
    return x.index_select(3, torch.arange(int(x.shape[3]) - 1, -1, -1))


class MirroredConv(nn.Conv2d):
    """A convolution with a mirror to each of its filters; it keeps height and width.

    The result has what the mirrors give below what the filters give, so that a batch norm behind it treats
    both alike. Images and results are mirrored, not weights: what a flipped image gives is then, to the last
    bit, the flipped result with the two halves exchanged.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, 2 H, W]``."""
        return torch.cat([super().forward(input), mirror(super().forward(mirror(input)))], dim=2)


class MirroredHalves(nn.Module):
    """What a :class:`MirroredConv` laid below each other, as channels: filters first, then mirrors."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, 2 H, W]`` to ``[N, 2 C, H, W]``."""
        # A number, not a part of the graph: whoever exports it wants to know the shape of the features.
        height = int(x.shape[2]) // 2
        return torch.cat([x[:, :, :height], x[:, :, height:]], dim=1)


class TiedExtractor(nn.Module):
    """A :class:`FeatureExtractor` with 8 filters and their 8 mirrors, which share their batch norm.

    The features of a flipped image are the flipped features of the image with the two halves of
    the channels exchanged: a server can flip them without having seen the image. 232 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = MirroredConv(3, TAP_CHANNELS // 2, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(TAP_CHANNELS // 2)
        self.halves = MirroredHalves()

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``[N, 3, S, S]`` to features ``[N, 16, S, S]``."""
        features: Tensor = self.halves(torch.relu(self.bn(self.conv(images))))
        return features


class Shortcut(nn.Module):
    """Identity, or a 1x1 convolution with batch norm where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.projects = stride != 1 or in_channels != out_channels
        if self.projects:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to the block's output shape."""
        return self.bn(self.conv(x)) if self.projects else x


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (He et al. 2016), expansion 4."""

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = Shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, 4 * planes, H / stride, W / stride]``."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.shortcut(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, of the small edge networks ResNet-4 and ResNet-6."""

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = Shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, planes, H / stride, W / stride]``."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class NarrowExtractor(nn.Module):
    """A stem, Bottlenecks of stride 2, and a 1x1 convolution to few channels: a tap of few numbers.

    The tap has a batch norm and a ReLU as a stem has: ``features [N, C, S / stride, S / stride]``,
    non-negative.
    """

    def __init__(self, num_blocks: int, channels: int) -> None:
        super().__init__()
        width = TAP_CHANNELS * EXPANSION
        inputs = [TAP_CHANNELS] + [width] * (num_blocks - 1)
        self.stem = FeatureExtractor()
        self.blocks = nn.Sequential(*(Bottleneck(each, TAP_CHANNELS, stride=2) for each in inputs))
        self.conv = nn.Conv2d(width, channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``[N, 3, S, S]`` to features ``[N, C, S / stride, S / stride]``."""
        features: Tensor = torch.relu(self.bn(self.conv(self.blocks(self.stem(images)))))
        return features


class Classifier(nn.Module):
    """Residual blocks, global average pooling and one linear layer on top of the tap."""

    def __init__(self, blocks: list[nn.Module], out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(out_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[N, C, H, W]`` to logits ``[N, num_classes]``."""
        logits: Tensor = self.fc(self.blocks(features).mean(dim=(2, 3)))
        return logits


def edge_extractor(layout: EdgeLayout) -> nn.Module:
    """Build what ships with the final model: images to the tap."""
    if layout.tap_blocks:
        return NarrowExtractor(layout.tap_blocks, layout.channels)
    return TiedExtractor() if layout.is_tied else FeatureExtractor(layout.stem_stride)


def edge_head(layout: EdgeLayout, num_classes: int) -> Classifier:
    """Build what a device trains beside its extractor: a few blocks of 16 planes and a linear layer."""
    block: type[nn.Module] = Bottleneck if layout.bottleneck else BasicBlock
    width = TAP_CHANNELS * (EXPANSION if layout.bottleneck else 1)
    inputs = [layout.channels] + [width] * (layout.head_blocks - 1)
    return Classifier([block(channels, TAP_CHANNELS) for channels in inputs], width, num_classes)


def server_trunk(layout: ServerLayout, num_classes: int) -> Classifier:
    """Build the server network: three stages of Bottlenecks, planes 16/32/64, no stem."""
    blocks: list[nn.Module] = []
    channels = layout.channels
    for planes, stride in zip((16, 32, 64), layout.strides, strict=True):
        for index in range(layout.stage_blocks):
            blocks.append(Bottleneck(channels, planes, stride if index == 0 else 1))
            channels = planes * EXPANSION
    return Classifier(blocks, channels, num_classes)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights in place: He-normal (fan out) convolutions, PyTorch's uniform linear layers."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(child, nn.Linear):
            bound = child.in_features**-0.5
            nn.init.uniform_(child.weight, -bound, bound, generator=generator)
            nn.init.uniform_(child.bias, -bound, bound, generator=generator)
