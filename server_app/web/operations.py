"""Describe what each endpoint takes and answers, as data: the third source of the OpenAPI document.

Routes and first lines come from the blueprints, schemas from the dataclasses of
:mod:`gkt_core.wire.protocol`; here stands what neither of them says. A test holds that no route is
missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gkt_core.bundle.manifest import DEVICE_FILES, ORT_FORMAT_FILES
from gkt_core.rounds.shared_extractor import EXTRACTOR_SPLIT
from gkt_core.wire.credentials import (
    ClientChange,
    ClientList,
    Enrolled,
    EnrolmentRequest,
    Enrolments,
    NewCredential,
)
from gkt_core.wire.online_features import MAX_INFERENCE_SAMPLES
from gkt_core.wire.protocol import (
    CLIENT_ID_PATTERN,
    LEVELS,
    MAX_MESSAGE_BYTES,
    MOST_PAGE_ROUNDS,
    MOST_ROUNDS,
    SHA256_HEADER,
    ZSTD,
    Health,
    Inference,
    JoinRequest,
    MissingShards,
    RoundPage,
    RoundReport,
    RunInfo,
    RunList,
    RunStatus,
    ShardReceipt,
    Task,
)
from gkt_core.wire.shards import SPLITS
from server_app.members.membership import RELEASE, REVOKE, ROTATE, TRUST
from server_app.operating import FORGET, RUN_ACTIONS
from server_app.overview.messages import Overview, RunChange, RunChanged
from server_app.page.files import ICON_TYPE, SCRIPT_TYPE, STYLE_TYPE
from server_app.page.messages import PageView

BINARY = "application/octet-stream"
PEM = "application/x-pem-file"
# Who may call an operation: anybody; whoever has a secret of the run, be it of a join link; a device in its
# own name; a device or an operator; an operator; who has a join link, or the device whose secret it replaces;
# an operator, or who asks on the server's machine itself where no proxy is in front.
EVERYBODY, INVITED, OWN_DEVICE, MEMBER, OPERATORS, NEWCOMER, WATCHERS = (
    "everybody", "invited", "device", "member", "operator", "newcomer", "watcher",
)  # fmt: skip
# Messages are small, but for a device's first, which may name thousands of classes.
MOST_SMALL_MESSAGE_BYTES = 16 * 1024
# What an operator may change of a device: POST .../clients/{client}/{action}.
ACTIONS = (REVOKE, RELEASE, TRUST, ROTATE, FORGET)


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint.

    Attributes:
        tag: The heading that it stands under.
        answer: The message that it answers with, or the media type of something else.
        answer_text: What the answer is.
        body: The message that it takes, or the media type of something else; None for no body.
        body_text: What the body is, for a person.
        refusals: Statuses of :class:`gkt_core.wire.protocol.ErrorBody` answers, beside the usual ones.
        headers: Request headers: name, whether it must be there, schema.
        queries: What may stand behind the path's question mark: name, schema.
        access: Who may call it.
        has_etag: Whether it is asked for again with If-None-Match.
        has_parts: Whether a part of the answer can be asked for, with Range and If-Range.
    """

    tag: str
    answer: type | str
    answer_text: str
    body: type | str | None = None
    body_text: str = ""
    refusals: tuple[int, ...] = ()
    headers: tuple[tuple[str, bool, dict[str, Any]], ...] = ()
    queries: tuple[tuple[str, dict[str, Any]], ...] = ()
    access: str = INVITED
    has_parts: bool = False
    has_etag: bool = False

    @property
    def needs_token(self) -> bool:
        """Whether a bearer token must come along."""
        return self.access != EVERYBODY


_ENCODING = ("Content-Encoding", False, {"enum": ["identity", ZSTD]})
_SHARD_ENCODING = ("Content-Encoding", False, {"enum": ["identity", ZSTD, LEVELS]})
_SHA256 = (SHA256_HEADER, True, {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
_MESSAGE_TEXT = f"at most {MOST_SMALL_MESSAGE_BYTES:,} bytes of JSON"
_KEPT = "a file of the page, which never changes under this name"
_SHARD_TEXT = (
    "a feature shard: one safetensors file with sample_ids, features, features_scale, features_offset, "
    "client_logits and labels; its hash is that of the body as sent, compressed or not"
)

OPERATIONS: dict[str, Operation] = {
    "runs.health": Operation("server", Health, "the run can go on", refusals=(503,), access=EVERYBODY),
    "runs.live": Operation("server", Health, "the server answers", access=EVERYBODY),
    "watching.healthz": Operation("server", Health, "the server answers", access=EVERYBODY),
    "watching.readyz": Operation("server", Health, "the run can go on", refusals=(503,), access=EVERYBODY),
    "watching.metrics": Operation(
        "server", "text/plain", "the run's numbers in Prometheus' text format", access=OPERATORS
    ),
    "runs.authority": Operation(
        "server",
        PEM,
        "the certificate (PEM) of the authority that this server made for itself, to be compared with the ca "
        "of a join link; 404 where it has none",
        refusals=(404,),
        access=EVERYBODY,
    ),
    "runs.list_runs": Operation("run", RunList, "the runs; one, for now"),
    "runs.info": Operation("run", RunInfo, "settings and bundle of the run", refusals=(404,)),
    "runs.status": Operation(
        "run",
        RunStatus,
        "the run at a glance; a device sees lines of its own",
        refusals=(404,),
        access=MEMBER,
    ),
    "runs.rounds": Operation(
        "run",
        RoundPage,
        "finished rounds, oldest first",
        refusals=(400, 404),
        queries=(
            ("after", {"type": "integer", "minimum": 0, "maximum": MOST_ROUNDS, "default": 0}),
            ("limit", {"type": "integer", "minimum": 1, "maximum": MOST_PAGE_ROUNDS, "default": 100}),
        ),
        access=MEMBER,
    ),
    "downloads.extractor": Operation(
        "round",
        BINARY,
        "a safetensors file with the one tensor extractor: all of its tensors, by name, behind each other",
        refusals=(404,),
        has_parts=True,
    ),
    "downloads.artifact": Operation(
        "run", BINARY, "the file as it was exported", refusals=(404,), has_parts=True
    ),
    "clients.join": Operation(
        "device",
        Task,
        "what to do next",
        JoinRequest,
        f"at most {MAX_MESSAGE_BYTES:,} bytes of JSON",
        refusals=(400, 404, 409, 413, 422),
        access=OWN_DEVICE,
    ),
    "clients.credential": Operation(
        "device",
        Enrolled,
        "the server knows the device by this secret",
        NewCredential,
        _MESSAGE_TEXT,
        refusals=(400, 404, 409, 413),
        access=NEWCOMER,
    ),
    "clients.task": Operation(
        "device",
        Task,
        "what to do next; with Prefer: wait=SECONDS (RFC 7240), at once or as soon as it is not to wait",
        refusals=(400, 404, 409),
        headers=(("Prefer", False, {"type": "string"}),),
        access=OWN_DEVICE,
    ),
    "uploads.missing_shards": Operation(
        "round",
        MissingShards,
        "indexes of what has not arrived; nothing once reported",
        refusals=(404, 409),
        access=OWN_DEVICE,
    ),
    "uploads.put_shard": Operation(
        "round",
        ShardReceipt,
        "the shard is kept",
        BINARY,
        _SHARD_TEXT,
        refusals=(400, 404, 408, 409, 413),
        headers=(_SHA256, _SHARD_ENCODING),
        access=OWN_DEVICE,
    ),
    "uploads.put_report": Operation(
        "round",
        Task,
        "what to do next",
        RoundReport,
        _MESSAGE_TEXT,
        refusals=(400, 404, 409, 413),
        access=OWN_DEVICE,
    ),
    "downloads.soft_labels": Operation(
        "round",
        BINARY,
        "a soft-label shard: safetensors with sample_ids and server_logits",
        refusals=(404, 409),
        access=OWN_DEVICE,
        has_parts=True,
    ),
    "downloads.model": Operation(
        "model",
        BINARY,
        "the template (ONNX without extractor) or the server's weights (safetensors)",
        refusals=(404, 409),
        access=MEMBER,
        has_parts=True,
    ),
    "inference.infer": Operation(
        "model",
        Inference,
        "classes of the samples, in the order of the features",
        BINARY,
        "a safetensors file with the one tensor features, float32 [N, C, H, W], N from 1 to "
        f"{MAX_INFERENCE_SAMPLES}: what extractor.onnx of gkt deploy --split gives",
        refusals=(400, 404, 408, 413),
        headers=(_ENCODING,),
        access=MEMBER,
    ),
    "operators.open_enrolments": Operation(
        "operator",
        Enrolments,
        "what makes join links",
        EnrolmentRequest,
        _MESSAGE_TEXT,
        refusals=(400, 404, 413, 422),
        access=OPERATORS,
    ),
    "operators.list_clients": Operation(
        "operator",
        ClientList,
        "the devices, by name",
        refusals=(404,),
        access=OPERATORS,
    ),
    "operators.change": Operation(
        "operator",
        ClientChange,
        "what the device is now",
        refusals=(400, 404, 422),
        access=OPERATORS,
    ),
    "watching.overview": Operation(
        "operator",
        Overview,
        "everything at a glance, what is wrong, and what to do",
        refusals=(404,),
        access=OPERATORS,
    ),
    "watching.change_of_run": Operation(
        "operator",
        RunChanged,
        "what the run is now",
        RunChange,
        "at most a reason, which devices are told; may be left out",
        refusals=(400, 404, 413, 422),
        access=OPERATORS,
    ),
    "page.view": Operation(
        "operator",
        PageView,
        "the run as its page shows it",
        access=WATCHERS,
        has_etag=True,
    ),
    "page.index": Operation("server", "text/html", "the page of the run", access=EVERYBODY),
    "page.script": Operation("server", SCRIPT_TYPE, _KEPT, refusals=(404,), access=EVERYBODY),
    "page.style": Operation("server", STYLE_TYPE, _KEPT, refusals=(404,), access=EVERYBODY),
    "page.icon": Operation("server", ICON_TYPE, _KEPT, refusals=(404,), access=EVERYBODY),
    "documents.openapi": Operation("server", "application/json", "this document", access=EVERYBODY),
    "documents.page": Operation("server", "text/html", "this document, for people", access=EVERYBODY),
    "joining.page": Operation("server", "text/html", "the page with which a phone joins", access=EVERYBODY),
    "joining.file": Operation("server", "*/*", "one of that page's files", refusals=(404,), access=EVERYBODY),
}

PATH_PARTS: dict[str, dict[str, Any]] = {
    "run_id": {"type": "string"},
    "client_id": {"type": "string", "pattern": f"^{CLIENT_ID_PATTERN}$"},
    "round_num": {"type": "integer", "minimum": 0},
    "split": {"enum": [*SPLITS, EXTRACTOR_SPLIT]},
    "index": {"type": "integer", "minimum": 0},
    "name": {"enum": [*DEVICE_FILES, *ORT_FORMAT_FILES]},
    "part": {"enum": ["template", "server"]},
    "file": {"type": "string"},
    "action": {"enum": list(ACTIONS)},
    "change": {"enum": list(RUN_ACTIONS)},
    "script": {"type": "string"},
    "style": {"type": "string"},
    "icon": {"type": "string"},
}

REFUSALS: dict[int, str] = {
    400: "the request is not what the protocol says, or holds something that this run does not expect",
    401: "the bearer token is missing, wrong, spent or revoked",
    403: "the bearer token is that of somebody who may not do this",
    404: "there is no such thing",
    408: "the body did not go on",
    409: "the call does not fit the state of the run",
    413: "the body is larger than anything that is expected here",
    416: "the file has no such part",
    422: "the device does not fit the bundle of this run, or there is nothing to change as was asked",
    503: "the storage does not answer for now, or the run cannot go on: ask again",
}
# Of every endpoint that needs the token.
USUAL_REFUSALS = (401, 403, 503)
