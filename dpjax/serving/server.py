"""The sockets of a policy server: who may connect, how many, how long, and how it ends.

A thread per connection runs a plain loop, and one thread samples for all of them (`worker`).
Pings are answered by the websocket library's own threads, however long a chunk takes.

    GET /healthz   200 as soon as the process listens
    GET /readyz    200 after warm-up, 503 before it and while the server stops
    GET /metrics   counters and times as text
"""

from collections.abc import Callable
import http
import logging
import socket
import ssl
import threading
import time
from typing import Any, NamedTuple

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.serving import access, sockets, wire
from dpjax.serving.connection import Connection
from dpjax.serving.service import Service

SPARE = 4  # a frame may be this many times too large, and its sender still gets a line of text
POLL = 0.02  # seconds between two looks while the server stops

log = logging.getLogger("dpjax")


class Limits(NamedTuple):
    """Against clients that are too many, too slow, or gone; times in seconds.

    clients: connections that are served at the same time.
    open_timeout: until a handshake is complete. close_timeout: for a closing handshake.
    send_timeout: a client that reads nothing of an answer for so long is disconnected.
    ping: between two pings; a client that does not answer one within as long is disconnected.
    """

    clients: int = 64
    open_timeout: float = 5.0
    close_timeout: float = 1.0
    send_timeout: float = 2.0
    ping: float = 20.0


class Server:
    """Serves a `Service` until `stop`; `start` binds the port and returns it."""

    def __init__(
        self,
        service: Service,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ):
        """port: 0 for any that is free. token: what clients must present; None for no check."""
        self.service = service
        self.is_ready = threading.Event()
        self._address = (host, port)
        self._token = None if token is None else token.encode()
        self._tls = tls
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._open: dict[Any, Connection] = {}  # {websocket: what is said over it}
        self._num_sockets = 0
        self._is_stopping = False
        self._stopped = threading.Event()
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listens, and accepts connections in a thread; returns the port.

        Clients that connect before `is_ready` is set wait for their first message.

        Raises UserError if the port is in use or not allowed.
        """
        sync = extras.require("websockets.sync.server", extra="serve")
        # It logs every connection, and a traceback for every one that breaks off.
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        host, port = self._address
        try:
            self._server = sync.serve(
                self._handle,
                host,
                port,
                ssl=self._tls,
                compression=None,
                max_size=SPARE * self.service.contract.max_bytes,
                max_queue=2,
                open_timeout=self._limits.open_timeout,
                close_timeout=self._limits.close_timeout,
                ping_interval=self._limits.ping,
                ping_timeout=self._limits.ping,
                process_request=self._answer_http,
                # Browsers say which page a connection comes from; robots' clients do not. So no
                # page that somebody opens on this machine can talk to the robot.
                origins=[None],
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"host {host}, port {port}: {reason}. Choose another port, or end the program "
                "that uses it.",
                argument="port",
            ) from None
        self._server.handler = self._limited(self._server.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self._server.socket.getsockname()[1]

    def stop(self, seconds: float = 2.0) -> None:
        """Accepts nothing new, answers what has come, and disconnects; in at most `seconds`."""
        until = time.monotonic() + seconds
        self._is_stopping = True
        closing = threading.Thread(
            target=self._server.shutdown, kwargs={"close_connections": False}, daemon=True
        )
        closing.start()
        # Connections are closed as soon as their answer is sent. Half of the time at most goes to
        # waiting for answers, so that clients can be told that the server goes away.
        while self._connections(busy=True) and time.monotonic() < until - seconds / 2:
            time.sleep(POLL)
        threads = [
            threading.Thread(target=self._close, args=(socket,), daemon=True)
            for socket in self._connections()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.service.worker.stop()
        self._stopped.set()

    def join(self) -> None:
        """Waits until `stop` has ended."""
        self._stopped.wait()

    def _connections(self, busy: bool = False) -> list[Any]:
        """The open websockets, or those whose answer is not sent yet."""
        with self._lock:
            return [socket for socket, c in self._open.items() if c.is_busy or not busy]

    def _close(self, socket: Any) -> None:
        """Tells a client that the server goes away."""
        try:
            socket.close(1001, "the server is stopping")
        except Exception as error:  # it is going away, however it ends
            log.debug("closing: %s", error)

    def _limited(self, handler: Callable) -> Callable:
        """A handler of sockets that refuses those beyond the limit, before a byte is read."""

        def handle(sock: socket.socket, address: Any) -> None:
            # Twice as many sockets as clients, so that those beyond the limit can be told why, and
            # so that /healthz works.
            with self._lock:
                is_accepted = self._num_sockets < 2 * self._limits.clients
                self._num_sockets += is_accepted
            if not is_accepted:
                self.service.counts.add("sockets_refused")
                self._forget(sock)
                return
            try:
                sockets.set_send_timeout(sock, self._limits.send_timeout)
                handler(sock, address)
            finally:
                with self._lock:
                    self._num_sockets -= 1

        return handle

    def _forget(self, sock: socket.socket) -> None:
        """Closes a socket that was accepted, and removes its thread from the library's list."""
        sock.close()
        with self._server.lock:
            self._server.handler_threads.discard(threading.current_thread())

    def _answer_http(self, websocket: Any, request: Any) -> Any:
        """The answer to an HTTP request; None if the connection becomes a websocket."""
        path = request.path.partition("?")[0]
        status = http.HTTPStatus
        if path == "/healthz":
            return websocket.respond(status.OK, "OK\n")
        if path == "/readyz":
            # Load balancers and scripts wait for this one.
            is_ready = self.is_ready.is_set() and not self._is_stopping
            code = status.OK if is_ready else status.SERVICE_UNAVAILABLE
            return websocket.respond(code, "ready\n" if is_ready else "not ready\n")
        if not access.has_token(request.headers.get("Authorization", ""), self._token):
            self.service.counts.add("unauthorized")
            text = "the token is missing or wrong: send Authorization: Api-Key <token>\n"
            return websocket.respond(status.UNAUTHORIZED, text)
        if path == "/metrics":
            return websocket.respond(status.OK, self._metrics())
        # openpi's clients do not send this header, and speak the part that has no version.
        asked = request.headers.get("Dpjax-Protocol", str(wire.PROTOCOL))
        if asked != str(wire.PROTOCOL):
            text = f"protocol {asked[:20]} was asked for, but this server speaks {wire.PROTOCOL}\n"
            return websocket.respond(status.BAD_REQUEST, text)
        if len(self._open) >= self._limits.clients or self._is_stopping:
            self.service.counts.add("clients_refused")
            text = f"{len(self._open)} clients are connected: no more are taken\n"
            return websocket.respond(status.SERVICE_UNAVAILABLE, text)
        return None

    def _metrics(self) -> str:
        """The text of /metrics."""
        service = self.service
        values = {
            "clients": len(self._open),
            "ready": int(self.is_ready.is_set()),
            **service.gauges(),
        }
        return service.counts.text(values)

    def _handle(self, websocket: Any) -> None:
        """Serves one client until it leaves."""
        exceptions = extras.require("websockets.exceptions", extra="serve")
        # The worker is told how many there are: alone, a client never waits for others.
        connection = Connection(self.service)
        with self._lock:
            self._open[websocket] = connection
            self.service.worker.clients = len(self._open)
        try:
            # During warm-up a client is connected, but not greeted yet.
            while not self.is_ready.wait(0.5):
                if self._is_stopping:
                    return
            websocket.send(wire.pack(self.service.describe()))
            for data in sockets.messages(websocket):
                websocket.send(connection.answer(data))
                connection.sent()
                # What has come is answered, and then the connection is closed.
                if self._is_stopping:
                    break
        except exceptions.ConnectionClosed:
            pass  # the client is gone, or was too slow
        finally:
            with self._lock:
                del self._open[websocket]
                self.service.worker.clients = len(self._open)
