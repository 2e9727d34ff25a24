"""The proof that comes with an export: each engine's steps against PyTorch in float64.

The measure is PyTorch's own float32: an engine may be no further from float64 than twice what PyTorch is,
over several batches and memory layouts, because rounding is amplified from step to step. One step from
equal weights (loss, every gradient, statistics) is the sharp part; 20 steps show what adds up.

What is run are the files themselves, at their own image size, which a portable step has in it. A step sees
as many pixels whatever the size: of large images it has few, and of very large ones there are fewer steps.
Batch statistics and gradients are sums over pixels, which do not mind whose they are. The limit is the same
for every size: at 224 and 256 px no quantity of ResNet-4, 6 or 8 is beyond 0.25 of PyTorch's furthest.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_export.engines import engine_opener
from edge_export.options import Depth
from gkt_core.bundle.manifest import ORT_TRAINING, Bundle
from gkt_core.bundle.onnx_runtime import can_train
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import MissingExtraError, VerificationError
from gkt_core.nn import EdgeNetwork, edge_loss
from gkt_core.nn.building import example_images
from gkt_core.nn.execution import torch_threads
from gkt_core.nn.losses import distance_correlation
from gkt_core.nn.optimizers import edge_optimizer
from gkt_core.rounds.engine import DeviceEngine

FEW_STEPS, _MOST_STEPS = 3, 20
# A step has so many images of 32 pixels and below, fewer of larger ones, and never one alone.
_IMAGES, _LEAST_IMAGES, _PIXELS = 16, 2, 32 * 32
_LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 1e-3}
# Rounding is luck: the median of three runs is compared with the largest of PyTorch's. One run of a deep
# network is refused now and then although nothing is wrong.
_RUNS = 3
# Beyond this many parameters float64 takes minutes: smaller batches, and every core. Below it a second thread
# gains little, and where the cores are busy it costs ten times the time: threads wait for each other busily.
_LARGE = 200_000
_IMAGES_OF_LARGE = 8
_FLOOR = 4 * float(np.finfo(np.float32).eps)

Arrays = dict[str, NDArray[np.float64]]
Batch = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]
Distances = dict[str, float]


@dataclass
class Trace:
    """What one engine did, by quantity."""

    loss: float
    curve: list[float]
    gradients: Arrays
    first: Arrays
    few: Arrays
    last: Arrays
    features: NDArray[np.float64]
    logits: NDArray[np.float64]


def verify_bundle(
    bundle: Bundle,
    network: EdgeNetwork,
    *,
    depth: Depth = "full",
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Run every engine of a bundle that is installed here.

    Args:
        bundle: What was exported.
        network: In PyTorch, with the weights that the bundle should begin from; left as it was.
        depth: ``full``: three runs of 20 steps. ``quick``: three of three steps, which finds every wrong
            gradient and statistic, yet not what grows slowly. ``none``: nothing is run.
        on_step: Called with the number of steps that are done, and of all.

    Returns:
        For each engine, ``checks``: by quantity the engine's distance from float64 (``distance``, relative),
        the largest of PyTorch's (``pytorch``) and the ``limit``; with ``depth``, ``steps``, ``batch_size``,
        ``runs``. Nothing for an engine that is not installed.

    Raises:
        MissingExtraError: None of the bundle's engines is installed.
        VerificationError: An engine is further from float64 than it may be; names the quantities.
    """
    manifest = bundle.manifest
    if depth == "none":
        return {}
    engines = [engine for engine in manifest.engines if engine != ORT_TRAINING or can_train()]
    if not engines:
        raise MissingExtraError(
            "the bundle is for ort-training alone: pip install 'gkt-edge[export]', whose "
            "ONNX Runtime trains (Python 3.11 and 3.12, not Linux on ARM)"
        )
    settings = manifest.edge_optimizer
    is_large = sum(parameter.numel() for parameter in network.parameters()) > _LARGE
    batch_size, steps = _batch_and_steps(manifest.image_size, _IMAGES_OF_LARGE if is_large else _IMAGES)
    runs, steps = _RUNS, steps if depth == "full" else FEW_STEPS
    layouts = (torch.contiguous_format, torch.channels_last)
    total = runs * steps * (1 + len(layouts) + len(engines))
    done = 0

    def stepped() -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    ours: dict[str, list[Distances]] = {engine: [] for engine in engines}
    pytorch: list[Distances] = []
    with contextlib.nullcontext() if is_large else torch_threads(1):
        for seed in range(runs):
            batches = [
                _batch(batch_size, manifest.image_size, manifest.num_classes, seed, k) for k in range(steps)
            ]
            weights = (manifest.temperature, manifest.leakage_penalty)
            follow = (settings, *weights, batches, stepped)
            exact = _run_torch(network, torch.float64, torch.contiguous_format, *follow)
            for layout in layouts:
                pytorch.append(_distances(_run_torch(network, torch.float32, layout, *follow), exact))
            for engine in engines:
                rate = _LEARNING_RATES[settings.name]
                opened = engine_opener()(
                    bundle, checkpoint=None, num_threads=1, learning_rate=rate, engine=engine
                )
                _check_initial(opened, network, engine)
                trace = _run_engine(opened, batches, stepped)
                ours[engine].append(_distances(trace, exact))
    results = {}
    for engine, distances in ours.items():
        checks = _compare(distances, pytorch)
        how = {"depth": depth, "steps": steps, "batch_size": batch_size, "runs": runs}
        results[engine] = how | {"checks": checks}
    _refuse(results)
    return results


def _batch_and_steps(image_size: int, images: int) -> tuple[int, int]:
    """How many images a step has and how many steps a run, for the pixels of so many images of 32 pixels."""
    pixels = images * _PIXELS
    batch_size = min(max(pixels // image_size**2, _LEAST_IMAGES), images)
    steps = _MOST_STEPS * pixels // (batch_size * image_size**2)
    return batch_size, min(max(steps, FEW_STEPS), _MOST_STEPS)


def _batch(num: int, image_size: int, num_classes: int, seed: int, step: int) -> Batch:
    """Smooth random images with pixel noise, as real ones are, labels and soft labels."""
    rng = np.random.default_rng((seed, step))
    coarse = rng.random((num, 3, image_size // 4, image_size // 4), dtype=np.float32)
    smooth = coarse.repeat(4, axis=2).repeat(4, axis=3)
    noise = example_images(num, image_size, seed=1000 * seed + step).numpy()
    teacher = 3 * rng.standard_normal((num, num_classes), dtype=np.float32)
    return (3 * smooth + noise) / 4, rng.integers(num_classes, size=num), teacher


def _run_torch(
    network: EdgeNetwork,
    dtype: torch.dtype,
    layout: torch.memory_format,
    settings: EdgeOptimizer,
    temperature: float,
    leakage_penalty: float,
    batches: list[Batch],
    stepped: Callable[[], None],
) -> Trace:
    model = copy.deepcopy(network).to(dtype).to(memory_format=layout)  # type: ignore[call-overload]
    model.train()
    optimizer = edge_optimizer(model.parameters(), settings, _LEARNING_RATES[settings.name])
    curve: list[float] = []
    kept: list[Arrays] = []
    gradients: Arrays = {}

    def tensor(images: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(images).to(dtype).contiguous(memory_format=layout)

    for images, labels, teacher in batches:
        optimizer.zero_grad()
        inputs = tensor(images)
        features, logits = model(inputs)
        soft = torch.from_numpy(teacher).to(dtype)
        loss = edge_loss(logits, torch.from_numpy(labels), soft, 1.0, temperature)
        if leakage_penalty:
            loss = loss + leakage_penalty * distance_correlation(inputs, features)
        torch.autograd.backward(loss)
        if not curve:
            gradients = {
                name: (parameter.grad + settings.l2_penalty * parameter.detach()).double().numpy()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        optimizer.step()
        curve.append(loss.item())
        kept.append(_state(model) if len(curve) in (1, FEW_STEPS, len(batches)) else {})
        stepped()
    model.eval()
    with torch.no_grad():
        features, logits = model(tensor(batches[0][0]))
    ends = kept[0], kept[FEW_STEPS - 1], kept[-1]
    return Trace(curve[0], curve, gradients, *ends, features.double().numpy(), logits.double().numpy())


def _run_engine(engine: DeviceEngine, batches: list[Batch], stepped: Callable[[], None]) -> Trace:
    curve: list[float] = []
    kept: list[Arrays] = []
    gradients: Arrays = {}
    for images, labels, teacher in batches:
        loss, _ = engine.train_step(images, labels, teacher, 1.0)
        if not curve:
            gradients = _wide(engine.gradients())
        curve.append(loss)
        kept.append(_wide(engine.parameters()) if len(curve) in (1, FEW_STEPS, len(batches)) else {})
        stepped()
    features, logits = engine.predict(batches[0][0])
    ends = kept[0], kept[FEW_STEPS - 1], kept[-1]
    return Trace(curve[0], curve, gradients, *ends, features.astype(np.float64), logits.astype(np.float64))


def _state(network: EdgeNetwork) -> Arrays:
    return {
        name: value.detach().double().numpy().copy()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def _wide(arrays: dict[str, NDArray[np.float32]]) -> Arrays:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _distances(trace: Trace, exact: Trace) -> Distances:
    """Relative L2 distance of every quantity."""
    quantities = {"loss": abs(trace.loss - exact.loss) / abs(exact.loss)}
    for name, gradient in exact.gradients.items():
        quantities[f"gradient of {name}"] = _distance({name: trace.gradients[name]}, {name: gradient})
    for when, ours, theirs in (
        ("1 step", trace.first, exact.first),
        (f"{FEW_STEPS} steps", trace.few, exact.few),
        (f"{len(exact.curve)} steps", trace.last, exact.last),
    ):
        for kind, is_kind in (("parameters", False), ("running statistics", True)):
            names = [name for name in theirs if (".running_" in name) is is_kind]
            if names:
                quantities[f"{kind} after {when}"] = _distance(ours, {name: theirs[name] for name in names})
    curves = {"": np.array(trace.curve)}, {"": np.array(exact.curve)}
    quantities[f"loss curve of {len(exact.curve)} steps"] = _distance(*curves)
    quantities["eval features"] = _distance({"": trace.features}, {"": exact.features})
    quantities["eval logits"] = _distance({"": trace.logits}, {"": exact.logits})
    return quantities


def _distance(ours: Arrays, exact: Arrays) -> float:
    apart = sum(float(((ours[name] - exact[name]) ** 2).sum()) for name in exact)
    size = sum(float((value**2).sum()) for value in exact.values())
    return float(np.sqrt(apart / max(size, 1e-300)))


def _compare(ours: list[Distances], pytorch: list[Distances]) -> dict[str, dict[str, float]]:
    checks = {}
    for quantity in ours[0]:
        distance = float(np.median([each[quantity] for each in ours]))
        largest = max(each[quantity] for each in pytorch)
        limit = 2 * max(largest, _FLOOR)
        checks[quantity] = {"distance": distance, "pytorch": largest, "limit": limit}
    return checks


def _check_initial(engine: DeviceEngine, network: EdgeNetwork, name: str) -> None:
    actual, expected = engine.parameters(), _state(network)
    wrong = [key for key in expected if key not in actual or not np.array_equal(actual[key], expected[key])]
    if wrong or set(actual) != set(expected):
        raise VerificationError(
            f"{name} does not begin from the weights of the PyTorch model: {', '.join(wrong[:3])}"
            f"{' and others' if len(wrong) > 3 else ''} differ: report this, and try another --engine"
        )


def _refuse(results: dict[str, Any]) -> None:
    further = [
        f"{engine}: {quantity} is {check['distance']:.1e} from float64, allowed is {check['limit']:.1e}"
        for engine, result in results.items()
        for quantity, check in result["checks"].items()
        # A NaN is no distance at all, and passes no comparison.
        if not check["distance"] <= check["limit"]
    ]
    if further:
        raise VerificationError(
            f"the artifacts differ from the PyTorch model in {len(further)} quantities "
            f"({'; '.join(further[:4])}): they must not be used; try the other --engine, and report this"
        )
