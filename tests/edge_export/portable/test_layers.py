"""Layers and their gradients, against autograd in float64; layers that no portable step can have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_export.portable.network import PortableNetwork
from edge_export.portable.step import initial_vectors, state_layout, train_step_model
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ConfigError
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.nn.building import Normalise
from tests.edge_export.portable.batches import batch_of, exact_loss, gradient_of

NORMALISE = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def check_gradients(network: EdgeNetwork) -> None:
    """By one step of plain SGD on six images of 12 pixels and four classes, beside autograd."""
    batch = batch_of(6, 12, 4)
    gradients = plain_step(network, *batch)
    exact_loss(network, batch)
    for name, parameter in network.named_parameters():
        assert np.abs(gradients[name] - gradient_of(parameter)).max() < 1e-5, name


def plain_step(
    network: EdgeNetwork, images: NDArray[np.float32], labels: NDArray[np.int64], teacher: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    state = {n: v.detach().clone() for n, v in network.state_dict().items() if "num_batches" not in n}
    optimizer = EdgeOptimizer("sgd")
    walked, layout = PortableNetwork(network, "mine", images.shape[2]), state_layout(state, optimizer)
    model = train_step_model(walked, layout, optimizer, num_classes=teacher.shape[1], temperature=3.0)
    session = onnxruntime_module().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    one = np.array(1.0, np.float32)
    inputs = {
        "images": images,
        "labels": labels,
        "server_logits": teacher,
        "alpha": one,
        "learning_rate": one,
    }
    (gradient,) = session.run(["gradient"], {**inputs, **initial_vectors(state, layout)})
    return layout.tensors({"parameters": gradient})


def test_a_registered_network_of_known_layers_is_differentiated() -> None:
    """Biases, strides, a 5x5 kernel: none of ours has them."""
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=2), nn.BatchNorm2d(6), nn.ReLU())

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 8, (3, 1), stride=(2, 1), padding=(1, 0))
            self.wide = nn.Conv2d(8, 8, 1)
            self.fc = nn.Linear(8, 4)

        def forward(self, features: Tensor) -> Tensor:
            hidden = torch.nn.functional.relu(self.conv(features))
            logits: Tensor = self.fc((hidden + self.wide(hidden)).mean(dim=(2, 3)))
            return logits

    check_gradients(EdgeNetwork(extractor, Head(), Normalise(*NORMALISE)))


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), 1), ((3, 3), 0), ((3, 3), 2), ((2, 3), (0, 1)), ((1, 3), (0, 2)), ((5, 5), 1)],
)
@pytest.mark.parametrize("width", [4, 8], ids=["few channels", "many channels"])
def test_convolutions_without_stride_are_differentiated(
    kernel: tuple[int, int], padding: int | tuple[int, int], width: int
) -> None:
    """Kernels and paddings that change the size; as a convolution, and as a transposed one."""
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
    middle = nn.Sequential(nn.Conv2d(width, 6, kernel, padding=padding), nn.BatchNorm2d(6), nn.ReLU())
    plain = nn.Sequential(nn.Conv2d(6, 9, kernel, padding=padding, bias=False), nn.AdaptiveAvgPool2d(1))
    head = nn.Sequential(middle, plain, nn.Flatten(), nn.Linear(9, 4))
    check_gradients(EdgeNetwork(extractor, head, Normalise(*NORMALISE)))


def test_a_projecting_block_is_differentiated() -> None:
    """Two 1x1 convolutions with batch norm that meet in a sum become one, of unlike widths here."""
    torch.manual_seed(0)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Sequential(
                nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU()
            )
            self.wide = nn.Sequential(nn.Conv2d(5, 8, 1, bias=False), nn.BatchNorm2d(8))
            self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
            self.fc = nn.Linear(8, 4)

        def forward(self, features: Tensor) -> Tensor:
            both = torch.relu(self.wide(self.narrow(features)) + self.shortcut(features))
            logits: Tensor = self.fc(both.mean(dim=(2, 3)))
            return logits

    extractor = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    check_gradients(EdgeNetwork(extractor, Head(), Normalise(*NORMALISE)))


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.MaxPool2d(2), "MaxPool2d"),
        (nn.Conv2d(16, 16, 3, groups=4), "groups"),
        (nn.BatchNorm2d(16, affine=False), "weights"),
        (nn.Dropout(0.5), "Dropout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_that_cannot_be_made_is_refused_by_name(layer: nn.Module, word: str) -> None:
    network = build_edge_network("resnet4", 3)
    blocks = network.head.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    blocks.insert(0, layer)
    with pytest.raises(ConfigError, match=f"network 'mine' cannot be a portable .*{word}"):
        PortableNetwork(network, "mine", 16)
