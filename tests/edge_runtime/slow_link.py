"""A link between a device and its server that is slow, breaks and stalls."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_PIECE = 4096


class SlowLink:
    """Passes bytes on over real sockets.

    Args:
        port: Of the server.

    Attributes:
        bytes_per_second: To the device, and from it; 0 for as many as there are.
        breaks_after: Bytes to the device after which a connection is cut.
        stalls_after: Bytes to the device after which the first connection stands still.
    """

    def __init__(self, port: int) -> None:
        self._port, self.bytes_per_second = port, 0.0
        self.breaks_after, self.stalls_after = 1 << 60, 1 << 60
        self.num_connections, self.passed, self.sent = 0, 0, 0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Lead to the server, and give the URL."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            # Accepted sockets inherit it: what is under way is little, as on a link that is really slow.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            threads = [threading.Thread(target=self._accept, args=(listener, stack))]
            threads[0].start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                self._ended.set()
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                threads[0].join()

    def _accept(self, listener: socket.socket, stack: contextlib.ExitStack) -> None:
        threads: list[threading.Thread] = []
        with contextlib.suppress(OSError):
            while True:
                device, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for end in (device, server):
                    stack.callback(end.close)
                is_first = self.num_connections == 0
                self.num_connections += 1
                for source, target, to_device in ((device, server, False), (server, device, True)):
                    arguments = (source, target, to_device, is_first)
                    threads.append(threading.Thread(target=self._pass, args=arguments, daemon=True))
                    threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, to_device: bool, is_first: bool) -> None:
        num = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if to_device and is_first and num >= self.stalls_after:
                    self._ended.wait()
                    return
                target.sendall(data)
                num += len(data)
                if to_device:
                    self.passed += len(data)
                else:
                    self.sent += len(data)
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                if to_device and num >= self.breaks_after:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
