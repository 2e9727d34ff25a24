"""The messages of the wire: they survive it, and whatever else arrives is one named error."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.errors import MessageError, ProtocolVersionError
from gkt_core.wire import protocol
from gkt_core.wire.message_json import LONGEST_TEXT, Shown
from gkt_core.wire.protocol import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    ErrorBody,
    JoinRequest,
    RoundReport,
    RunInfo,
    RunList,
    RunStatus,
    Task,
    TrainerProgress,
    check_client_id,
    check_protocol_version,
    from_dict,
    from_json,
    to_json,
)

MESSAGES = [
    found
    for _, found in inspect.getmembers(protocol, inspect.isclass)
    if dataclasses.is_dataclass(found) and found.__module__ == protocol.__name__
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLAIN: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63) + 1, 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=20),
    bool: st.booleans(),
}


def values_of(expected: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type, within its range."""
    if get_origin(expected) is Annotated:
        kind, about = get_args(expected)
        if about is Shown:
            return st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)
        limits = {"min_value": kind(about.low), "max_value": kind(about.high)}
        return st.integers(**limits) if kind is int else st.floats(**limits)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return st.builds(
            expected,
            **{name: values_of(hint) for name, hint in get_type_hints(expected, include_extras=True).items()},
        )
    if get_origin(expected) is list:
        return st.lists(values_of(get_args(expected)[0]), max_size=3)
    if get_origin(expected) is dict:
        item = get_args(expected)[1]
        return st.dictionaries(st.text(max_size=5), JSON if item is Any else values_of(item), max_size=3)
    if get_origin(expected) is types.UnionType:
        return st.one_of(
            [st.none() if option is type(None) else values_of(option) for option in get_args(expected)]
        )
    return PLAIN[expected]


TASK = Task("train", 2, 1, 0.5, "round 2 is open")
REPORT = RoundReport(3, 1, 130, 0.7, 0.75, 1.5, 0.25, 88.0)
STATUS = RunStatus(
    run_id="run",
    phase="training",
    round_num=1,
    rounds=5,
    num_clients=2,
    clients=[protocol.ClientStatus("client-000", 100, 10, "portable", 1)],
    reported=["client-000"],
    traffic={"upload/shards": 5, "download/bundle": 6},
    trainer_idle_seconds=0.0,
    trainer=TrainerProgress(1, 3, 20, 900.0, 0.5),
)


def changed(message: Any, **changes: Any) -> bytes:
    return json.dumps({**dataclasses.asdict(message), **changes}).encode()


def test_the_messages_are_found() -> None:
    assert {RunList, RunInfo, JoinRequest, Task, RoundReport, RunStatus, ErrorBody} <= set(MESSAGES)


@pytest.mark.parametrize("message_type", MESSAGES)
@given(data=st.data())
@settings(max_examples=30)
def test_every_message_survives_the_wire(message_type: type[Any], data: st.DataObject) -> None:
    message = data.draw(values_of(message_type))
    encoded = to_json(message)
    assert from_json(message_type, encoded) == message
    assert to_json(from_json(message_type, encoded)) == encoded


@pytest.mark.parametrize("message_type", MESSAGES)
def test_every_message_is_frozen(message_type: type[Any]) -> None:
    assert message_type.__dataclass_params__.frozen


def test_equal_messages_are_equal_bytes() -> None:
    assert to_json(TASK) == (
        b'{"action": "train", "learning_rate_scale": 1.0, "reason": "round 2 is open", '
        b'"retry_after_seconds": 0.5, '
        b'"round_num": 2, "soft_labels_round": 1, "upload_round": 0, "view_round": 0}'
    )


def test_nested_messages_come_back_as_messages() -> None:
    read = from_json(RunStatus, to_json(STATUS))
    assert isinstance(read.clients[0], protocol.ClientStatus)
    assert isinstance(read.trainer, TrainerProgress)
    assert read == STATUS


def test_fields_with_a_default_may_be_left_out() -> None:
    values = dataclasses.asdict(STATUS)
    for name in ("trainer", "finished_rounds", "error"):
        del values[name]
    read = from_dict(RunStatus, values)
    assert (read.trainer, read.finished_rounds, read.error) == (None, [], "")


@pytest.mark.parametrize("message_type", MESSAGES)
def test_a_missing_field_is_named(message_type: type[Any]) -> None:
    required = [
        field.name
        for field in dataclasses.fields(message_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    with pytest.raises(MessageError, match=rf"missing fields .*{sorted(required)[0]}.* same version of gkt"):
        from_json(message_type, b"{}")


@dataclasses.dataclass(frozen=True)
class Kept:
    """Of a file, and not of the wire."""

    round_num: int


def test_an_unknown_field_of_a_file_is_named() -> None:
    with pytest.raises(MessageError, match=r"Kept: unknown fields \['priority'\], missing fields \[\]"):
        from_dict(Kept, {"round_num": 1, "priority": 1})


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (TASK, "round_num", True),
        (TASK, "round_num", 1.0),
        (TASK, "round_num", "1"),
        (TASK, "round_num", None),
        (TASK, "round_num", []),
        (TASK, "action", 1),
        (TASK, "action", None),
        (TASK, "retry_after_seconds", True),
        (TASK, "retry_after_seconds", "1.0"),
        (REPORT, "loss", None),
        (REPORT, "loss", [0.5]),
        (STATUS, "clients", {}),
        (STATUS, "clients", "client-000"),
        (STATUS, "clients", None),
        (STATUS, "clients", [1]),
        (STATUS, "clients", [[]]),
        (STATUS, "reported", ["a", 1]),
        (STATUS, "reported", [["a"]]),
        (STATUS, "traffic", []),
        (STATUS, "traffic", {"upload/shards": 1.5}),
        (STATUS, "traffic", {"upload/shards": None}),
        (STATUS, "trainer", []),
        (STATUS, "trainer", 1),
        (STATUS, "trainer", {"epoch": 1}),
        (RunInfo(1, "run", {}, {}), "config", []),
        (RunInfo(1, "run", {}, {}), "config", None),
        (RunInfo(1, "run", {}, {}), "manifest", "{}"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:20],
)
def test_a_value_of_another_type_is_refused(message: Any, field: str, value: Any) -> None:
    with pytest.raises(MessageError, match=f"{field} is|expected a JSON object|missing fields"):
        from_json(type(message), changed(message, **{field: value}))


def test_a_wrong_value_inside_a_list_is_named_by_its_message() -> None:
    client = {**dataclasses.asdict(STATUS.clients[0]), "num_examples": "many"}
    with pytest.raises(MessageError, match=r"ClientStatus\.num_examples is 'many', expected int"):
        from_json(RunStatus, changed(STATUS, clients=[client]))


def test_a_whole_number_is_a_float() -> None:
    read = from_json(Task, changed(TASK, retry_after_seconds=2))
    assert type(read.retry_after_seconds) is float
    assert read.retry_after_seconds == 2.0


@pytest.mark.parametrize("data", [b"", b"{", b"gkt", b"\xff\xfe\x00", b"\x00", b"{'action': 1}", b"1" * 5000])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="not JSON, expected a Task"):
        from_json(Task, data)


@pytest.mark.parametrize("data", [b"[]", b"null", b"7", b'"train"', b"true", b"[{}]"])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="expected a JSON object with the fields of Task"):
        from_json(Task, data)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400])
@pytest.mark.parametrize("field", ["loss", "num_examples"])
def test_numbers_that_no_page_can_show_are_refused(field: str, text: str) -> None:
    data = changed(REPORT, **{field: "here"}).replace(b'"here"', text.encode())
    with pytest.raises(MessageError):
        from_json(RoundReport, data)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_json_lacks_is_refused_also_deep_inside(text: str) -> None:
    data = to_json(RunInfo(1, "run", {"a": [{"b": "here"}]}, {})).replace(b'"here"', text.encode())
    with pytest.raises(MessageError, match="not JSON"):
        from_json(RunInfo, data)


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
def test_whole_numbers_are_of_64_bits(value: Any) -> None:
    with pytest.raises(MessageError, match=r"64 bits|expected float"):
        from_json(RoundReport, changed(REPORT, num_examples=value))
    with pytest.raises(MessageError, match="expected float"):
        from_json(RoundReport, changed(REPORT, loss=value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_device_gets_a_named_error_before_it_sends(value: Any) -> None:
    with pytest.raises(MessageError, match="RoundReport holds NaN or infinity"):
        to_json(dataclasses.replace(REPORT, loss=value))


def test_half_a_surrogate_pair_is_no_text() -> None:
    join = JoinRequest(1, 10, 2, 3, "portable")
    with pytest.raises(MessageError, match="engine holds half of a surrogate pair"):
        from_json(JoinRequest, changed(join, engine="\ud800"))
    smile = dataclasses.replace(join, engine="\U0001f600")
    assert from_json(JoinRequest, to_json(smile)) == smile


def test_a_message_may_be_so_large_and_no_larger() -> None:
    empty = len(to_json(ErrorBody("GKTError", "")))
    largest = ErrorBody("GKTError", "x" * (MAX_MESSAGE_BYTES - empty))
    assert from_json(ErrorBody, to_json(largest)) == largest
    with pytest.raises(MessageError, match=f"{MAX_MESSAGE_BYTES + 1} bytes, expected at most"):
        from_json(ErrorBody, to_json(dataclasses.replace(largest, message=largest.message + "x")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round_num", 2**62), ("round_num", -1), ("soft_labels_round", 1_000_001), ("view_round", -1),
        ("retry_after_seconds", 1e308), ("retry_after_seconds", -1), ("retry_after_seconds", 3600.5),
        ("learning_rate_scale", -0.5), ("learning_rate_scale", 1e9),
    ],
)  # fmt: skip
def test_numbers_from_a_server_are_in_their_ranges(field: str, value: float) -> None:
    with pytest.raises(MessageError, match=rf"Task\.{field} is .*, expected 0 to"):
        from_dict(Task, dataclasses.asdict(TASK) | {field: value})


def test_a_text_for_a_person_is_made_printable_and_cut() -> None:
    text = "stop\x1b[2J\x1b]0;title\x07 \u202e\n" + "x" * 5000
    read = from_json(Task, to_json(dataclasses.replace(TASK, reason=text)))
    assert read.reason.startswith("stop\\x1b[2J\\x1b]0;title\\x07 \\u202e\\nx")
    assert read.reason.isprintable() and len(read.reason) < LONGEST_TEXT + 50


@pytest.mark.parametrize("run_id", ["", "run\n7", "../run", "run/7", "r" * 65, "run\x1b", "?"])
def test_a_run_whose_id_could_be_no_part_of_a_path(run_id: str) -> None:
    with pytest.raises(MessageError, match="the server's run is") as caught:
        protocol.check_run_id(run_id)
    assert str(caught.value).isprintable()
    assert protocol.check_run_id("run-0123abcd") == "run-0123abcd"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused(opening: str, closing: str) -> None:
    # Any depth: what json still reads may be too deep for Python to print in a message.
    for depth in [*range(1, 100), *range(800, 1000), 5000, 100_000]:
        deep = opening * depth + "1" + closing * depth
        data = changed(TASK, round_num="here").replace(b'"here"', deep.encode())
        with pytest.raises(MessageError):
            from_json(Task, data)


@pytest.mark.parametrize("message_type", MESSAGES)
@given(values=JSON)
@settings(max_examples=30)
def test_any_json_is_a_message_or_a_message_error(message_type: type[Any], values: Any) -> None:
    with pytest.raises(MessageError):
        from_dict(message_type, values)


@given(st.sampled_from([TASK, REPORT, STATUS]), st.data())
@settings(max_examples=200)
def test_any_value_of_any_field_is_of_its_type_or_refused(message: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(message)]))
    try:
        read = from_json(type(message), changed(message, **{name: data.draw(JSON)}))
    except MessageError:
        return
    to_json(read)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        from_json(Task, data)


def test_the_version_of_this_side_is_accepted_and_another_named_with_the_remedy() -> None:
    check_protocol_version(PROTOCOL_VERSION)
    for other in (PROTOCOL_VERSION + 1, 0, -1):
        expected = f"protocol version {other}, this one {PROTOCOL_VERSION} .* pip install --upgrade gkt-edge"
        with pytest.raises(ProtocolVersionError, match=expected):
            check_protocol_version(other)


@pytest.mark.parametrize("client_id", ["a", "0", "client-000", "Pi_4.kitchen", "x" * 64])
def test_client_ids_that_are_file_names_everywhere(client_id: str) -> None:
    assert check_client_id(client_id) == client_id


@pytest.mark.parametrize(
    "client_id",
    [
        "",
        ".",
        "..",
        "-a",
        "_a",
        ".a",
        "a/b",
        "../a",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "\u0661",
        "a:b",
        "x" * 65,
    ],
)
def test_client_ids_that_are_not(client_id: str) -> None:
    with pytest.raises(MessageError, match="expected 1 to 64 letters"):
        check_client_id(client_id)


@given(st.text(max_size=70))
def test_an_accepted_client_id_is_one_part_of_a_path(client_id: str) -> None:
    try:
        check_client_id(client_id)
    except MessageError:
        return
    assert client_id.isascii()
    assert not set(client_id) & set('/\\:*?"<>|\0 \n')
    assert client_id[0].isalnum()


def test_no_field_accepts_anything() -> None:
    for message_type in MESSAGES:
        assert Any not in get_type_hints(message_type).values()
