"""Whoever looks at a run while its devices wait: open pages, ``gkt status --watch``, and Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

from gkt_core.errors import RunFailedError
from gkt_core.wire.paths import HEALTHZ, METRICS, OVERVIEW, PAGE_VIEW, RUN, fill

# As the page asks, ``gkt status --watch`` by default, and the example of docs/watching.md.
_PAGE_SECONDS, _STATUS_SECONDS, _SCRAPE_SECONDS = 3.0, 2.0, 15.0
_TIMEOUT_SECONDS = 60.0


class Asker:
    """Ask for one path on a kept connection, as an operator, and for no more than what has changed.

    Args:
        url: The server's.
        bearer: What follows ``Bearer``; nothing for what everybody may ask.
        path: What is asked for.
    """

    def __init__(self, url: str, bearer: str, path: str) -> None:
        at = urlsplit(url)
        self._connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=_TIMEOUT_SECONDS)
        self._path = path
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def ask(self) -> float:
        """Ask once; in seconds, how long that took.

        Raises:
            RunFailedError: The server refuses.
        """
        began = time.perf_counter()
        self._connection.request("GET", self._path, headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
        if answer.status not in (200, 304):
            raise RunFailedError(f"GET {self._path} is answered with {answer.status}")
        if etag := answer.headers.get("ETag"):
            self._headers["If-None-Match"] = etag
        return took

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def watched(url: str, bearer: str, run_id: str, num_pages: int) -> Iterator[list[int]]:
    """Let pages be open, a terminal be watched and metrics be read; gives a list of how often each asked.

    Raises:
        RunFailedError: At the end, where the server refused one of them.
    """
    overview = fill(RUN, run_id=run_id) + OVERVIEW
    looks = [(PAGE_VIEW, _PAGE_SECONDS)] * num_pages
    looks += [(overview, _STATUS_SECONDS), (METRICS, _SCRAPE_SECONDS)]
    ended, counts = threading.Event(), [0] * len(looks)

    def look(number: int, path: str, every: float) -> None:
        # Not all at once: people open pages when they like.
        ended.wait(every * number / len(looks))
        with contextlib.closing(Asker(url, bearer, path)) as asker:
            while not ended.is_set():
                asker.ask()
                counts[number] += 1
                ended.wait(every)

    with ThreadPoolExecutor(len(looks)) as threads:
        looking = [threads.submit(look, number, *each) for number, each in enumerate(looks)]
        try:
            yield counts
        finally:
            ended.set()
    for each in looking:
        each.result()


def small_answers(url: str, number: int) -> list[float]:
    """Ask a question that needs nobody's secret so many times on one connection; seconds of each, sorted."""
    with contextlib.closing(Asker(url, "", HEALTHZ)) as asker:
        asker.ask()
        return sorted(asker.ask() for _ in range(number))
