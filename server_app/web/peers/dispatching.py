"""Give each request a thread of those that are for who sends it; all of it in the loop of the web server."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from server_app.web.peers.answering import busy_answer
from server_app.web.peers.queueing import (
    HEALTH,
    HEALTH_THREADS,
    KNOWN,
    NOT_COUNTED,
    STRANGER,
    STRANGER_THREADS,
    Counted,
    QueueFullError,
    Queueing,
)


class Dispatches:
    """The part of the worker that knows whose threads a request is for.

    Attributes:
        knows: Says whether what a request shows as its secret holds; without it, all that is shown does.
    """

    knows: Callable[[str], bool] | None = None

    # Of the worker.
    cfg: Any
    tpool: Any
    method_queue: Any
    handle: Any
    finish_request: Any
    _go_on: Any
    _drop: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queueing = Queueing()
        self._strangers: dict[Any, Future[Any]] = {}
        self._pools = {
            STRANGER: ThreadPoolExecutor(min(STRANGER_THREADS, self.cfg.threads), "strangers"),
            HEALTH: ThreadPoolExecutor(HEALTH_THREADS, "health"),
        }

    def _end_pools(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def enqueue_req(self, conn: Any) -> None:
        """Let a thread handle a request, unless too many wait for one, or the process is about to end."""
        self._queueing.is_checked = self.knows is not None
        try:
            conn.counted = self._queueing.take(conn.head)
        except QueueFullError as error:
            if error.queue != STRANGER or not self._send_a_stranger_away():
                self._send_away(conn, str(error))
                return
            conn.counted = self._queueing.take(conn.head)
        queue = conn.counted.queue
        handle = self._handle_unless_known if queue == STRANGER and conn.counted.shown else self.handle
        try:
            future = self._pools.get(queue, self.tpool).submit(handle, conn)
        except RuntimeError:
            self._answered_for(conn)
            self._drop(conn)
        else:
            if queue == STRANGER:
                self._strangers[conn] = future
            future.add_done_callback(lambda done: self.method_queue.defer(self._handled, conn, done))

    def _handle_unless_known(self, conn: Any) -> Any:
        """Handle a stranger's request, unless its secret holds: then it belongs into the other queue."""
        assert self.knows is not None
        return KNOWN if self.knows(conn.counted.shown) else self.handle(conn)

    def _handled(self, conn: Any, done: Future[Any]) -> None:
        if done.cancelled():
            self._send_away(conn, "others came")
            return
        counted = self._answered_for(conn)
        if not done.exception() and done.result() is KNOWN:
            self._queueing.remember(counted.shown)
            self.enqueue_req(conn)
            return
        conn.is_known = counted.queue == KNOWN
        self.finish_request(conn, done)

    def _answered_for(self, conn: Any) -> Counted:
        """Count the request of a connection no more."""
        counted: Counted = conn.counted
        self._queueing.give_back(counted)
        self._strangers.pop(conn, None)
        conn.counted = NOT_COUNTED
        return counted

    def _send_a_stranger_away(self) -> bool:
        """Let one of those that wait give way to who has just come; whether there is one.

        Whichever it is: a crowd that fills the queue would keep everybody out who comes later.
        """
        waiting = list(self._strangers)
        for conn in random.sample(waiting, min(len(waiting), 2 * STRANGER_THREADS)):
            if self._strangers[conn].cancel():
                self._answered_for(conn)
                return True
        return False

    def _send_away(self, conn: Any, why: str) -> None:
        with contextlib.suppress(OSError):
            conn.sock.sendall(busy_answer(why))
        self._go_on(conn, kept=False)
