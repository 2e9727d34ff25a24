"""A device takes part in a run of the tap that its owner was told of, and in no other: over real sockets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.client import Client
from gkt_core.bundle.manifest import Bundle, Manifest, load_bundle
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError, UnsafeModelError
from gkt_core.wire.protocol import JoinRequest, to_json
from tests.edge_runtime.hostile import FEATURE_FILES, changed_bundle, copied_by_convolution, thinned_images
from tests.edge_runtime.hostile_cases import straight
from tests.edge_runtime.hostile_server import HostileServer, session_of, trained_template
from tests.edge_runtime.test_hostile_server import ENGINES, device
from tests.server_app.server_fixtures import private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

NAME = "resnet8-16x8x8"
TOLD = ("--require-tap", NAME, "--max-bits", "4")
# Of images of 8 pixels a tap of stride 4 has 2 by 2.
SHAPE = "16x2x2"


@pytest.fixture
def narrow(narrow_bundle: Path) -> Bundle:
    """What the owner was told of."""
    return load_bundle(narrow_bundle)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "client-a.npz"
    save_private_data(path, private_data(1))
    return path


def served(bundle: Bundle, codec: str = "uint4", **changes: Any) -> HostileServer:
    config = run_config(num_clients=1, rounds=2, codec=codec)
    template = trained_template(bundle)
    return HostileServer(lambda number: session_of(bundle, template, config, straight, **changes))


@pytest.mark.parametrize("told", [TOLD, ("--require-tap", SHAPE), ("--max-bits", "32"), ()], ids=str)
def test_a_run_of_the_tap_that_was_told_is_taken_part_in(
    narrow: Bundle, data: Path, told: tuple[str, ...]
) -> None:
    server = served(narrow)
    done, _ = device(server, data, *told, "--json", "--progress", "plain")
    assert done.returncode == 0, done.stderr
    assert server.uploads == 2 * 3
    shown, _ = device(served(narrow), data, *told, "--dry-run")
    assert f"The tap of this run: {NAME}, {SHAPE}, 4 bits a number." in shown.stdout


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_extractor_that_passes_pixels_under_the_name_of_the_tap(
    narrow: Bundle, data: Path, tmp_path: Path, engine: str, dry: bool
) -> None:
    """Name, shape and bits are those of the tap, and what comes out of it is some of the image."""
    folder = tmp_path.with_name(f"{tmp_path.name}-hostile")
    server = served(changed_bundle(narrow.path, folder, FEATURE_FILES[engine], thinned_images))
    done, _ = device(server, data, *TOLD, "--engine", ENGINES[engine], *(["--dry-run"] if dry else []))
    assert done.returncode == UnsafeModelError.exit_code == 2, done.stderr
    assert "lets private images through" in done.stderr
    assert server.uploads == 0 and server.counted("join") == 0


@pytest.mark.parametrize(
    ("engine", "dry"), [("portable", False), ("ort_training", False), ("portable", True)], ids=str
)
@pytest.mark.parametrize(
    ("told", "changes", "codec", "said"),
    [
        # Another network, of the same shape as the name of the wanted one says, of images of 8 pixels.
        (TOLD, {}, "uint4", ("tap is resnet8, 16x8x8, 4 bits", f"told of {NAME}, which is {SHAPE} here")),
        (("--require-tap", SHAPE), {}, "uint4", ("tap is resnet8, 16x8x8", f"told of {SHAPE} (--require")),
        # The wanted name over features of another shape.
        (TOLD, {"edge_network": NAME}, "uint4", (f"tap is {NAME}, 16x8x8, 4", f"told of {NAME}, which")),
        (
            ("--max-bits", "4"),
            {},
            "fp32",
            ("resnet8, 16x8x8, 32 bits", "told of 4 bits at most (--max-b"),
        ),
        (
            ("--max-bits", "4"),
            {},
            "uint8",
            ("resnet8, 16x8x8, 8 bits", "told of 4 bits at most (--max-b"),
        ),
        # Nobody told the device, but the bundle that the server shows says so itself.
        ((), {"max_bits": 4}, "fp16", ("asks for features as fp16, 16 bits", "its bundle says 4 at most")),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_another_tap_is_refused_and_both_are_named(
    server_bundle: Path,
    data: Path,
    engine: str,
    told: tuple[str, ...],
    changes: dict[str, Any],
    codec: str,
    said: tuple[str, str],
    dry: bool,
) -> None:
    server = served(load_bundle(server_bundle), codec, **changes)
    done, there = device(server, data, *told, "--engine", ENGINES[engine], *(["--dry-run"] if dry else []))
    assert done.returncode == UnsafeModelError.exit_code == 2, done.stderr
    shown = " ".join(done.stderr.split())
    assert all(words in shown for words in said), shown
    # Nothing of the bundle was fetched either.
    counted = server.sessions[0].counted
    assert server.uploads == counted["join"] == counted["artifact"] == 0
    assert there == (["client-a.npz"] if dry else ["client-a.npz", "state"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_manifest_that_lies_in_everything_meets_its_own_graphs(
    server_bundle: Path, data: Path, tmp_path: Path, engine: str
) -> None:
    """The wanted name and shape, and graphs of another network that copy the images."""
    folder = tmp_path.with_name(f"{tmp_path.name}-hostile")
    hostile = changed_bundle(server_bundle, folder, FEATURE_FILES[engine], copied_by_convolution)
    tells: list[dict[str, Any]] = [{"tensors": {}}, {}]
    for changes in tells:
        server = served(hostile, edge_network=NAME, features=[16, 2, 2], **changes)
        done, _ = device(server, data, *TOLD, "--engine", ENGINES[engine])
        assert done.returncode == 2, done.stderr
        assert server.uploads == 0 and server.counted("join") == 0


def test_from_python(narrow: Bundle, server_bundle: Path, data: Path) -> None:
    for bundle, refused in ((narrow, False), (load_bundle(server_bundle), True)):
        server = served(bundle)
        with server.listening() as url:
            client = Client(
                url,
                data,
                token="session-0",
                state_dir=data.parent / f"state-{refused}",
                patience_seconds=0,
                require_tap=SHAPE,
                max_bits=4,
            )
            if refused:
                with pytest.raises(UnsafeModelError, match=r"16x8x8, 4 bits .* told of 16x2x2 .*--max-bits"):
                    client.run()
            else:
                assert client.run().rounds == 2
        assert (server.uploads == 0) is refused
    for words in ("16x8", "0x8x8", "Resnet8", "../tap"):
        with pytest.raises(ConfigError, match=r"--require-tap is .*such as 16x8x8"):
            Client(None, data, require_tap=words)
    with pytest.raises(ConfigError, match=r"--max-bits is 0, expected 1 to 32"):
        Client(None, data, max_bits=0)


def test_photos_are_not_packed_for_another_tap(server_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    server = served(load_bundle(server_bundle), "fp32")
    done, _ = device(server, tmp_path / "photos", *TOLD)
    assert done.returncode == 2 and "told of" in done.stderr
    assert "packed" not in " ".join(path.name for path in (tmp_path / "state").iterdir())


def test_the_server_holds_to_what_a_device_tells_it(api: Any) -> None:
    """Over the server itself, whose bundle is another and whose codec is uint8."""
    manifest = Manifest.from_dict(api.http.get(api.root).json()["manifest"])
    asked = JoinRequest(1, 12, 5, manifest.num_classes, "portable", list(manifest.class_names))
    for changes, status, said in (
        ({"require_tap": NAME, "max_bits": 4}, 422, f"told of {NAME}"),
        ({"max_bits": 4}, 422, "told of 4 bits at most"),
        ({"require_tap": "no tap"}, 422, "--require-tap is 'no tap'"),
        ({"max_bits": 99}, 422, "expected 1 to 32"),
        ({"require_tap": manifest.edge_network, "max_bits": 32}, 200, ""),
    ):
        request = dataclasses.replace(asked, **changes)
        answer = api.http.put(f"{api.root}/clients/client-a", content=to_json(request))
        assert answer.status_code == status, answer.text
        assert said in json.loads(answer.text).get("message", "")
