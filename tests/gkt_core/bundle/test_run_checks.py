"""A run and a bundle that do not fit are refused with both sides and the way out."""

from __future__ import annotations

import dataclasses

import pytest

from gkt_core.bundle.manifest import Bundle, Manifest
from gkt_core.bundle.run_checks import check_class_names, check_run
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ArtifactError, ConfigError


def made_for(manifest: Manifest, config: RunConfig) -> Manifest:
    settings = EdgeOptimizer.of_run(config)
    return dataclasses.replace(manifest, optimizer=settings.name, optimizer_settings=settings.to_dict())


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(edge_optimizer="sgd", edge_weight_decay=1e-4),
        RunConfig(edge_optimizer="sgd", momentum=0.5, nesterov=False),
        RunConfig(edge_optimizer="adamw", edge_weight_decay=1e-2),
        RunConfig(edge_amsgrad=True),
    ],
)
def test_a_bundle_made_for_the_run_fits_no_other(digits_bundle: Bundle, config: RunConfig) -> None:
    check_run(made_for(digits_bundle.manifest, config), config)
    for other in (RunConfig(edge_weight_decay=0.5), RunConfig(edge_optimizer="sgd", edge_weight_decay=0.5)):
        with pytest.raises(ConfigError, match=r"the run wants optimizer \w+, weight_decay 0\.5"):
            check_run(made_for(digits_bundle.manifest, config), other)


def test_the_message_has_the_options_to_export_with(digits_bundle: Bundle) -> None:
    config = RunConfig(edge_optimizer="sgd", edge_weight_decay=1e-4)
    expected = "with --optimizer sgd --weight-decay 0.0001 --momentum 0.9 --nesterov, or change"
    with pytest.raises(ConfigError, match=expected):
        check_run(digits_bundle.manifest, config)
    with pytest.raises(ConfigError, match=r"temperature 4\.0, the artifacts .* 3\.0"):
        check_run(digits_bundle.manifest, RunConfig(temperature=4.0))


def test_a_run_asks_for_no_more_bits_than_devices_were_promised(digits_bundle: Bundle) -> None:
    promised = dataclasses.replace(digits_bundle.manifest, max_bits=8)
    for codec in ("uint4", "uint8"):
        check_run(promised, RunConfig(codec=codec))
    with pytest.raises(ConfigError, match=r"fp16, 16 bits .* 8 at most: choose --codec uint8 or uint4 or"):
        check_run(promised, RunConfig(codec="fp16"))
    expected = r"2 at most: choose --codec uint2 or uint1, or export them again with --max-bits 4"
    with pytest.raises(ConfigError, match=expected):
        check_run(dataclasses.replace(promised, max_bits=2), RunConfig(codec="uint4"))


def test_what_another_device_calls_its_classes_cannot_write_on_a_terminal() -> None:
    with pytest.raises(ArtifactError, match=r"b has cat, '\\x1b\[2Jdog\\n'") as refused:
        check_class_names(("cat", "dog"), "a", ("cat", "\x1b[2Jdog\n"), "b")
    assert str(refused.value).isprintable()
