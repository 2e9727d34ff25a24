"""A join link says what it says, or names what is wrong with it; its token is shown nowhere."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.errors import ConfigError
from gkt_core.wire.addresses import is_readable_on_the_way
from gkt_core.wire.credentials import Bearer, is_secret, new_secret, read_bearer, secret_sha256
from gkt_core.wire.join_link import JoinLink, given_join_link, is_join_link, read_join_link

SECRET = "s3cret-of-the-tests_0123456789"
LINK = JoinLink("https://server:8443", "00aa11bb22cc", SECRET, "ab" * 32, "cd" * 32)
TEXT = (
    f"gkt+https://server:8443/#enroll=00aa11bb22cc.{SECRET}&bundle=sha256:{'ab' * 32}&ca=sha256:{'cd' * 32}"
)


@pytest.mark.parametrize(
    "link",
    [
        LINK,
        dataclasses.replace(LINK, ca_sha256=""),
        JoinLink("http://127.0.0.1:8080", "00aa11bb", SECRET, "ab" * 32),
        JoinLink("https://[::1]:9", "00aa11bb", SECRET, "ab" * 32, "cd" * 32),
        JoinLink("https://gkt.example.org/behind/a/proxy", "00aa11bb", SECRET, "ab" * 32),
    ],
)
def test_a_link_is_read_as_it_was_made(link: JoinLink) -> None:
    assert read_join_link(link.text()) == link
    assert read_join_link(f"  {link.text()}\n") == link
    # As the address of the server's page.
    assert is_join_link(link.page()) and read_join_link(link.page()) == link
    assert SECRET not in repr(link) and SECRET not in repr(link.bearer)


def test_the_text_of_a_link() -> None:
    assert LINK.text() == TEXT
    assert LINK.page() == TEXT.replace("gkt+", "").replace("/#", "/join#")
    assert LINK.bearer.text() == f"enroll~00aa11bb22cc~{SECRET}"
    # Whoever types it, or a mail program, may change the letters of scheme and host.
    assert read_join_link(TEXT.replace("gkt+https://s", "GKT+HTTPS://S")).url == "https://Server:8443"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no link into a run"),
        ("https://server:8443/", "no link into a run"),
        ("gkt+ftp://server/", "no link into a run"),
        (TEXT.partition("&")[0], "does not say bundle (a shell cuts it at & without quotes)"),
        (TEXT.partition("#")[0], "does not say enroll"),
        (TEXT.replace("enroll=", "enrol="), "'enrol', which this version does not know"),
        (TEXT + "&more=1", "'more', which this version does not know"),
        (TEXT + "&ca=sha256:" + "cd" * 32, "says ca twice"),
        (TEXT[:-1], "ca is not sha256:"),
        (TEXT.replace("sha256:ab", "sha512:ab"), "bundle is not sha256:"),
        (TEXT.replace("ab" * 32, "AB" * 32), "bundle is not sha256:"),
        (TEXT.replace(f".{SECRET}", ""), "enroll is not NUMBER.TOKEN"),
        (TEXT.replace(SECRET, "short"), "enroll is not NUMBER.TOKEN"),
        (TEXT.replace("gkt+https", "gkt+http"), "names an authority (ca) and is gkt+http"),
        (TEXT.replace("server:8443", "user@server:8443"), "not one of a server"),
        (TEXT.replace("server:8443", ""), "not one of a server"),
        (TEXT.replace("8443", "99999"), "cannot be read"),
        (TEXT.replace("8443", "0"), "not one of a server"),
        (TEXT.replace("/#", "/?x=1#"), "not one of a server"),
        (TEXT.replace("server", "ser ver"), "holds blanks"),
        (TEXT.replace("server", "s\xebrver"), "odd characters"),
        (TEXT + "&" + "x" * 3000, "longer than any"),
    ],
)
def test_what_is_wrong_with_a_link_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        read_join_link(text)
    assert SECRET not in str(caught.value)


@given(st.text(max_size=80), st.integers(0, len(TEXT)))
def test_a_bent_link_is_a_link_or_a_named_error(inserted: str, at: int) -> None:
    for text in (TEXT[:at] + inserted + TEXT[at:], TEXT[:at], inserted):
        try:
            link = read_join_link(text)
        except ConfigError as error:
            assert SECRET not in str(error)
        else:
            assert is_join_link(text) and read_join_link(link.text()) == link


def test_a_link_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "join.txt").write_text(f"{TEXT}\n")
    assert given_join_link(str(tmp_path / "join.txt")) == given_join_link(TEXT) == LINK
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other").write_text("http://server:8080")
    for name, words in (
        ("none", "No such file"),
        ("binary", "not text"),
        (".", "Is a directory"),
        ("other", "no link into a run"),
    ):
        with pytest.raises(ConfigError, match=words):
            given_join_link(str(tmp_path / name))
    with pytest.raises(ConfigError, match="no file that holds one"):
        given_join_link("a\0b")


def test_bearers() -> None:
    secret = new_secret()
    assert len({new_secret() for _ in range(100)}) == 100 and len(secret) == 43
    for bearer in (Bearer("device", "client-a.b_c", secret), Bearer("operator", "", secret)):
        assert read_bearer(bearer.text()) == bearer
    for text in (
        "",
        "device",
        f"device~{secret}",
        f"other~a~{secret}",
        f"device~a/b~{secret}",
        "device~a~short",
    ):
        assert read_bearer(text) is None
    assert is_secret(secret, secret_sha256(secret)) and not is_secret(secret, "")
    assert not is_secret(new_secret(), secret_sha256(secret))


@pytest.mark.parametrize(
    ("url", "is_readable"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://localhost", False),
        ("http://[::1]:9", False),
        ("https://server", False),
        ("http://server", True),
        ("HTTP://10.0.0.5:8080", True),
    ],
)
def test_who_may_read_along(url: str, is_readable: bool) -> None:
    assert is_readable_on_the_way(url) is is_readable
