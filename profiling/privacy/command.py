"""``gkt profile privacy``: what an attacker sees."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gkt_core.config.run_config import CODECS
from gkt_core.errors import MissingExtraError
from profiling.frame import emit_report, output_options


@click.command()
@click.option(
    "--dataset",
    default="digits",
    show_default=True,
    help="digits, cifar10 or cifar100 (downloaded), PATH.npz, or a folder with one folder of images a class.",
)
@click.option("--image-size", type=int, help="Scale images to this many pixels, a multiple of 4.")
@click.option("--limit", default=2000, show_default=True, help="Images that the attacker has.")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Where downloads are kept.",
)
@click.option(
    "--codec", "codecs", multiple=True, type=click.Choice(CODECS), help="May be repeated.  [default: all]"
)
@click.option(
    "--noise",
    multiple=True,
    type=float,
    default=(0.1, 0.5, 2.0),
    show_default=True,
    help="Gaussian noise on fp32 features, in their standard deviations; may be repeated.",
)
@click.option("--epochs", default=10, show_default=True, help="Of each decoder's training.")
@click.option("--extractor-epochs", default=1, show_default=True, help="Local epochs before the upload.")
@click.option("--victims", "num_victims", default=500, show_default=True, help="Test images to rebuild.")
@click.option("--seed", default=0, show_default=True)
@output_options
def privacy(
    *,
    dataset: str,
    image_size: int | None,
    limit: int,
    data_root: Path,
    codecs: tuple[str, ...],
    noise: tuple[float, ...],
    epochs: int,
    extractor_epochs: int,
    num_victims: int,
    seed: int,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Rebuild images from uploaded features with a small decoder, for each codec and noise level.

    Features AND LABELS leave a device. This shows how much of the images the features are: SSIM and PSNR of
    the reconstructions, and ten of them as a picture (--out privacy.png). A minute for the digits, some for
    CIFAR-10.
    """
    try:
        from gkt_core.data.datasets import load_dataset  # noqa: PLC0415
        from profiling.privacy.measure import PrivacyOptions, measure_privacy  # noqa: PLC0415 - imports torch

        options = PrivacyOptions(
            codecs=codecs or CODECS,
            noise=noise,
            epochs=epochs,
            extractor_epochs=extractor_epochs,
            num_victims=num_victims,
            seed=seed,
        )
        data = load_dataset(dataset, image_size=image_size, limit=limit, seed=seed, data_root=data_root)
        with Console(stderr=True).status("starting") as status:
            document = measure_privacy(data, options, on_phase=status.update)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "export,profile") from error
    emit_report(document, outs, as_json)
