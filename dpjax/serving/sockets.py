"""Clients that read nothing, or do not say goodbye: no thread waits for them forever."""

from collections.abc import Iterator
import socket
import struct
import sys
from typing import Any

LOOK = 1.0  # seconds between two looks at a silent connection


def messages(websocket: Any, seconds: float = LOOK) -> Iterator[bytes | str]:
    """The messages of a client, until it leaves or the connection has ended for another reason.

    Raises the library's ConnectionClosed if the client leaves.
    """
    while True:
        try:
            yield websocket.recv(timeout=seconds)
        except TimeoutError:
            # An idle client is fine. But a frame that is too large ends the protocol on our side
            # alone: a client that does not close its own side would keep its place.
            if websocket.state.name != "OPEN":
                return


def set_send_timeout(sock: socket.socket, seconds: float) -> None:
    """Lets a blocked `send` fail after this time; reading is not affected."""
    # Without it a thread whose client reads nothing waits forever, with the connection's lock.
    if sys.platform != "win32":
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
