"""The device's side of the wire: what is retried, for how long, and which error comes out in the end."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from edge_runtime.connection.answers import OddAnswerError, refusal_of
from edge_runtime.server_client import ServerClient
from gkt_core import errors
from gkt_core.errors import (
    ArtifactError,
    AuthenticationError,
    ConfigError,
    GKTError,
    MessageError,
    ProtocolVersionError,
    RoundError,
    ServerUnavailableError,
    ShardError,
)
from gkt_core.wire.compression import decompress
from gkt_core.wire.protocol import (
    SHA256_HEADER,
    ErrorBody,
    JoinRequest,
    RoundReport,
    RunInfo,
    RunList,
    ShardReceipt,
    Task,
    to_json,
)
from gkt_core.wire.shards import ShardKey
from tests.conftest import LONGEST_SECONDS

TASK = Task("wait", 1, 0, 0.5, "the others")
JOIN = JoinRequest(1, 12, 5, 3, "ort_training")
KEY = ShardKey("client-a", 2, "train", 3)


# Answers to give, patience and lines of the log: a client, and what it asked.
Connect = Callable[..., tuple[ServerClient, list[httpx.Request]]]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr("edge_runtime.server_client.time.monotonic", stopped.monotonic)
    return stopped


@pytest.fixture
def connect(clock: Clock) -> Iterator[Connect]:
    """Makes clients of a server that gives these answers, the last one again and again."""
    clients: list[ServerClient] = []

    def make(
        *answers: httpx.Response | Exception, patience_seconds: float = 60.0, lines: list[str] | None = None
    ) -> tuple[ServerClient, list[httpx.Request]]:
        waiting = itertools.chain(answers[:-1], itertools.repeat(answers[-1]))
        asked: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            asked.append(request)
            answer = next(waiting)
            if isinstance(answer, Exception):
                raise answer
            # A new one each time: an answer is read once.
            return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)

        client = ServerClient(
            "http://server:8080",
            "the-token",
            patience_seconds=patience_seconds,
            transport=httpx.MockTransport(handle),
            on_retry=(lambda line: None) if lines is None else lines.append,
            sleep=clock.sleep,
        )
        clients.append(client)
        return client, asked

    yield make
    for client in clients:
        client.close()


def answer(message: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, content=to_json(message), headers={"Content-Type": "application/json", **headers}
    )


def file(content: bytes, **headers: str) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream", **headers}
    return httpx.Response(200, content=content, headers=headers)


def refusal(status: int, error: str, message: str = "the reason") -> httpx.Response:
    return answer(ErrorBody(error, message), status)


# --- what is retried


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(connect: Connect, clock: Clock, status: int) -> None:
    client, asked = connect(httpx.Response(status), httpx.Response(status, text="<html>"), answer(TASK))
    assert client.task("client-a") == TASK
    assert [str(request.url) for request in asked] == ["http://server:8080/clients/client-a/task"] * 3
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.ReadError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_tried_again(connect: Connect, clock: Clock, trouble: Exception) -> None:
    client, asked = connect(trouble, trouble, trouble, answer(TASK))
    assert client.task("client-a") == TASK
    assert len(asked) == 4 and len(clock.slept) == 3


def test_the_wait_doubles_up_to_a_limit_with_jitter(connect: Connect, clock: Clock) -> None:
    client, _ = connect(*[httpx.ConnectError("refused")] * 12, answer(TASK), patience_seconds=1000)
    client.task("client-a")
    longest = [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    for slept, most in zip(clock.slept, longest, strict=True):
        assert most / 2 <= slept <= most


def test_the_server_may_ask_for_a_longer_wait(connect: Connect, clock: Clock) -> None:
    client, _ = connect(httpx.Response(503, headers={"Retry-After": "7.5"}), answer(TASK))
    client.task("client-a")
    # Never sooner, and not all devices at the same moment.
    assert len(clock.slept) == 1 and 7.5 + 0.125 <= clock.slept[0] <= 7.5 + 0.25


@pytest.mark.parametrize("asked", ["0", "-5", "soon", "nan", "Fri, 31 Dec 1999 23:59:59 GMT", ""])
def test_a_wait_that_makes_no_sense_is_not_obeyed(connect: Connect, clock: Clock, asked: str) -> None:
    client, _ = connect(httpx.Response(503, headers={"Retry-After": asked}), answer(TASK))
    client.task("client-a")
    assert len(clock.slept) == 1 and 0.125 <= clock.slept[0] <= 0.25


def test_each_retry_is_a_line_for_the_log(connect: Connect, clock: Clock) -> None:
    lines: list[str] = []
    client, _ = connect(httpx.ConnectError("refused"), httpx.Response(503), answer(TASK), lines=lines)
    client.task("client-a")
    assert len(lines) == 2
    assert "GET /clients/client-a/task: ConnectError: refused; next try in" in lines[0]
    assert "status 503" in lines[1]


# --- patience


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), httpx.Response(503)])
def test_patience_ends(connect: Connect, clock: Clock, trouble: httpx.Response | Exception) -> None:
    client, asked = connect(trouble, patience_seconds=10)
    with pytest.raises(ServerUnavailableError) as caught:
        client.task("client-a")
    assert caught.value.exit_code == 4
    for word in ("http://server:8080 did not answer for 10 s", "gkt serve"):
        assert word in str(caught.value)
    assert ("ConnectError" if isinstance(trouble, Exception) else "status 503") in str(caught.value)
    assert sum(clock.slept) <= 10
    assert len(asked) == len(clock.slept) + 1


def test_no_patience_is_one_try(connect: Connect, clock: Clock) -> None:
    client, asked = connect(httpx.ConnectError("refused"), patience_seconds=0)
    with pytest.raises(ServerUnavailableError):
        client.task("client-a")
    assert len(asked) == 1 and clock.slept == []


def test_a_wait_beyond_the_patience_is_not_begun(connect: Connect, clock: Clock) -> None:
    client, _ = connect(httpx.Response(503, headers={"Retry-After": "61"}), patience_seconds=60)
    with pytest.raises(ServerUnavailableError):
        client.task("client-a")
    assert clock.slept == []


def test_patience_begins_anew_with_every_call(connect: Connect, clock: Clock) -> None:
    client, _ = connect(httpx.Response(503, headers={"Retry-After": "40"}), answer(TASK))
    client.task("client-a")
    clock.now += 1000
    assert client.task("client-a") == TASK


def test_a_lid_that_was_closed_is_no_silence_of_the_server(connect: Connect, clock: Clock) -> None:
    """An hour passes while a request is under way; the connection is dead when the device wakes up."""
    client, asked = connect(httpx.ReadTimeout("slow"), answer(TASK), patience_seconds=300)

    def asleep(*arguments: Any, **options: Any) -> Any:
        clock.now += 3600 if not asked else 0
        return stream(*arguments, **options)

    stream = client._http.stream
    client._http.stream = asleep  # type: ignore[method-assign] # a request that takes an hour
    assert client.task("client-a") == TASK
    assert len(asked) == 2


def test_tries_that_take_long_use_patience_up(connect: Connect, clock: Clock) -> None:
    client, asked = connect(httpx.ReadTimeout("slow"), patience_seconds=300)
    stream = client._http.stream

    def slow(*arguments: Any, **options: Any) -> Any:
        clock.now += 60
        return stream(*arguments, **options)

    client._http.stream = slow  # type: ignore[method-assign] # each takes a minute
    with pytest.raises(ServerUnavailableError):
        client.task("client-a")
    assert len(asked) == 5


def test_a_body_that_changed_on_its_way_is_sent_again(connect: Connect, clock: Clock) -> None:
    client, asked = connect(refusal(400, "ChecksumError"), answer(ShardReceipt(8, 100, False)))
    assert client.put_shard(KEY, bytes(100), compressed=False) == ShardReceipt(8, 100, False)
    assert len(asked) == 2 and len(clock.slept) == 1


def test_patience_may_have_no_end(connect: Connect, clock: Clock) -> None:
    troubles = [httpx.ConnectError("refused")] * 200
    client, asked = connect(*troubles, answer(TASK), patience_seconds=math.inf)
    assert client.task("client-a") == TASK
    assert len(asked) == 201 and sum(clock.slept) > 200 * 10


# --- what is not retried


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (400, ShardError),
        (400, MessageError),
        (400, ProtocolVersionError),
        (409, RoundError),
        (422, ArtifactError),
    ],
)
def test_a_refusal_is_the_same_error_here(
    connect: Connect, clock: Clock, status: int, error: type[GKTError]
) -> None:
    client, asked = connect(refusal(status, error.__name__))
    with pytest.raises(error, match=r"^the reason$") as caught:
        client.task("client-a")
    assert type(caught.value) is error
    assert len(asked) == 1 and clock.slept == []


def test_every_error_of_the_tree_crosses_the_wire(connect: Connect) -> None:
    tree = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, GKTError)]
    assert len(tree) > 15
    for error in tree:
        client, _ = connect(refusal(400, error.__name__))
        with pytest.raises(GKTError) as caught:
            client.task("client-a")
        assert type(caught.value) is error


@pytest.mark.parametrize("name", ["NotFound", "annotations", "Exception", "EXIT_INTERRUPTED", "__doc__", ""])
def test_an_error_that_is_none_of_ours_is_a_message_error(connect: Connect, name: str) -> None:
    client, _ = connect(refusal(404, name))
    with pytest.raises(MessageError, match="the server answered 404: the reason"):
        client.task("client-a")


# --- what something between answers


@pytest.mark.parametrize(
    ("status", "hint"), [(411, "does not let such uploads through"), (413, "client_max_body_size")]
)
def test_what_is_said_of_uploads_is_said_of_uploads_alone(status: int, hint: str) -> None:
    for method, is_said in (("PUT", True), ("POST", True), ("GET", False), ("HEAD", False)):
        answer = httpx.Response(status, text=HTML, request=httpx.Request(method, "http://server"))
        with pytest.raises(OddAnswerError) as caught:
            refusal_of(answer, stall_seconds=LONGEST_SECONDS)
        assert (hint in str(caught.value)) is is_said


HTML = "<html>one moment please</html>"
CUT = httpx.Response(200, content=to_json(TASK)[:20], headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        (httpx.Response(522, text=HTML), "status 522 .*a CDN does not reach the server"),
        (httpx.Response(524, text=HTML), "a CDN does not reach the server"),
        (httpx.Response(530, text=HTML), "a CDN does not reach the server"),
        (httpx.Response(404, text=HTML), "status 404 .*is it the one that gkt serve printed"),
        (httpx.Response(403, content=b'{"detail": "forbidden"}'), "a firewall"),
        (httpx.Response(403, json={"error": "no", "message": "no", "statusCode": 403}), "a firewall"),
        (httpx.Response(403, text='{"error": "no", "message": "no"}'), "a firewall"),
        (httpx.Response(407, headers={"Proxy-Authenticate": "Basic"}), "a user name and a password"),
        (httpx.Response(411), "wants a length where nothing is sent, or another server answers"),
        (httpx.Response(413, text=HTML), "a firewall"),
        (httpx.Response(418), "a firewall"),
        (httpx.Response(502, text=HTML), "is gkt serve running"),
        (
            httpx.Response(301, headers={"Location": "http://login.hotel/?secret=1"}),
            "to http://login.hotel: ",
        ),
        (httpx.Response(302, headers={"Location": "/login"}), "leads to another page: a captive portal"),
        (httpx.Response(302, headers={"Location": "http://[/"}), "leads to nowhere: a captive portal"),
        (httpx.Response(200, html=HTML), "text/html where application/json was .*a captive portal"),
        (httpx.Response(200, content=b""), "an answer of no type"),
        (httpx.Response(204), "an answer of no type"),
        (httpx.Response(200, headers={"Content-Type": "text/\x1b[2J"}), "an answer of no type"),
        (httpx.Response(200, json={"status": "please log in"}), "an answer of another server, or one cut"),
        (httpx.Response(200, json=["please log in"]), "an answer of another server"),
        (httpx.Response(200, json={"padding": "x" * 2_000_000}), "more than any message of gkt serve"),
        (CUT, "cut short"),
        (
            httpx.Response(
                200,
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
                stream=httpx.ByteStream(b"no gzip"),
            ),
            "cannot be decoded .*a proxy changed it",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status_code),
)
def test_an_answer_of_something_between_is_asked_again(
    connect: Connect, clock: Clock, found: httpx.Response, hint: str
) -> None:
    lines: list[str] = []
    client, asked = connect(found, found, found, answer(TASK), lines=lines)
    assert client.task("client-a") == TASK
    assert len(asked) == 4 and len(clock.slept) == 3
    # Said once, however long it lasts.
    assert len(lines) == 1 and re.search(hint, lines[0]), lines
    assert "secret" not in lines[0] and lines[0].isprintable()
    client, _ = connect(found, patience_seconds=10)
    with pytest.raises(ServerUnavailableError, match=hint) as caught:
        client.task("client-a")
    assert caught.value.exit_code == 4


def test_each_kind_of_odd_answer_is_said(connect: Connect, clock: Clock) -> None:
    lines: list[str] = []
    kinds = [httpx.Response(status, text=HTML) for status in (522, 404, 522, 404)]
    client, _ = connect(*kinds, answer(TASK), *kinds, answer(TASK), lines=lines)
    client.task("client-a")
    assert [re.findall(r"status (\d+)", line) for line in lines] == [["522"], ["404"]]
    client.task("client-a")
    assert len(lines) == 4


@pytest.mark.parametrize(
    "found",
    [
        httpx.Response(200, content=b"<html>", headers={"Content-Type": "text/html"}),
        file(b"soft lab", **{SHA256_HEADER: hashlib.sha256(b"soft labels").hexdigest()}),
        file(b"hard labels", **{SHA256_HEADER: hashlib.sha256(b"soft labels").hexdigest()}),
    ],
)
def test_a_file_that_is_not_the_servers_is_asked_again(
    connect: Connect, clock: Clock, found: httpx.Response
) -> None:
    whole = file(b"soft labels", **{SHA256_HEADER: hashlib.sha256(b"soft labels").hexdigest()})
    client, asked = connect(found, whole)
    assert client.soft_labels("client-a", 1) == b"soft labels"
    assert len(asked) == 2


@pytest.mark.parametrize(
    "found",
    [b'{"action": "wait"}', to_json(TASK).replace(b"0.5", b"NaN"), to_json(TASK).replace(b"0.5", b'""')],
)
def test_a_message_of_another_version_is_none_of_these(connect: Connect, clock: Clock, found: bytes) -> None:
    client, _ = connect(httpx.Response(200, content=found, headers={"Content-Type": "application/json"}))
    with pytest.raises(MessageError):
        client.task("client-a")
    assert clock.slept == []


# --- finding the run


def test_the_run_is_found_and_used_in_every_later_call(connect: Connect) -> None:
    info = RunInfo(1, "run-7", {}, {})
    client, asked = connect(answer(RunList(1, ["run-7"])), answer(info), answer(TASK))
    assert client.run_info() == info
    assert client.join("client-a", JOIN) == TASK
    assert [(request.method, request.url.path) for request in asked] == [
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs/run-7"),
        ("PUT", "/v1/runs/run-7/clients/client-a"),
    ]
    assert {request.headers["Authorization"] for request in asked} == {"Bearer the-token"}


def test_a_server_of_another_version_is_refused(connect: Connect) -> None:
    client, _ = connect(answer(RunList(2, ["run-7"])))
    with pytest.raises(ProtocolVersionError, match="version 2, this one 1"):
        client.run_info()


@pytest.mark.parametrize("run_ids", [[], ["run-7", "run-8"]])
def test_a_server_must_have_one_run(connect: Connect, run_ids: list[str]) -> None:
    client, _ = connect(answer(RunList(1, run_ids)))
    with pytest.raises(MessageError, match=f"{len(run_ids)} runs, expected one"):
        client.run_info()


# --- what is sent, and what is counted


@pytest.mark.parametrize("compressed", [True, False])
def test_a_shard_travels_with_its_hash(connect: Connect, compressed: bool) -> None:
    data = bytes(1000)
    client, asked = connect(answer(ShardReceipt(8, 100, False)))
    assert client.put_shard(KEY, data, compressed=compressed) == ShardReceipt(8, 100, False)
    (request,) = asked
    assert request.url.path == "/rounds/2/clients/client-a/shards/train/3"
    assert request.headers[SHA256_HEADER] == hashlib.sha256(request.content).hexdigest()
    assert request.headers.get("Content-Encoding") == ("zstd" if compressed else None)
    assert (decompress(request.content, 1000) if compressed else request.content) == data
    assert client.upload_bytes == len(request.content)


def test_a_retried_upload_is_the_same_and_counted_each_time(connect: Connect, clock: Clock) -> None:
    data = np.random.default_rng(0).bytes(5000)
    client, asked = connect(httpx.ReadTimeout("slow"), httpx.Response(503), answer(ShardReceipt(8, 1, True)))
    assert client.put_shard(KEY, data, compressed=False).already_stored
    assert [request.content for request in asked] == [data] * 3
    assert client.upload_bytes == 3 * len(data)


def test_bodies_of_answers_are_counted(connect: Connect) -> None:
    client, _ = connect(answer(TASK), file(b"soft labels"))
    client.task("client-a")
    assert client.soft_labels("client-a", 1) == b"soft labels"
    assert client.download_bytes == len(to_json(TASK)) + 11
    assert client.upload_bytes == 0


def test_a_report_is_sent(connect: Connect) -> None:
    report = RoundReport(2, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)
    client, asked = connect(answer(TASK))
    assert client.report("client-a", 4, report) == TASK
    assert asked[0].url.path == "/rounds/4/clients/client-a/report"
    assert asked[0].content == to_json(report)


# --- addresses and tokens


@pytest.mark.parametrize("url", ["", "server:8080", "ftp://server", "http://", "http://server:99999"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigError, match="server URL"):
        ServerClient(url, "the-token")


@pytest.mark.parametrize("token", ["sch\xf6n", "\u2603", "", "the-token\n", " the-token", "the\0token"])
def test_a_token_that_no_header_can_hold(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        ServerClient("http://server", token)


def test_an_address_may_have_a_path(clock: Clock) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, headers=answer(TASK).headers, stream=answer(TASK).stream)

    client = ServerClient("https://server/gkt/", "the-token", transport=httpx.MockTransport(handle))
    client.task("client-a")
    client.close()
    assert asked == ["/gkt/clients/client-a/task"]
