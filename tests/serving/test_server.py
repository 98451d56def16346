"""Sockets: tokens, limits, slow and vanishing clients, health, and the end of a server."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from support import serving
from support.serving import client
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from dpjax.core.errors import UserError
from dpjax.serving import access, wire
from dpjax.serving.server import Limits, Server

MESSAGE = wire.pack({"state": serving.STATE})


def get(url, path, **headers):
    """(status, body) of an HTTP request."""
    request = urllib.request.Request(url.replace("ws", "http", 1) + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def works(url):
    with client(url) as websocket:
        websocket.send(MESSAGE)
        return isinstance(websocket.recv(5), bytes)


def test_the_server_speaks_first_and_answers_in_turn():
    with serving.serving(serving.service()) as (_, url), client(url) as websocket:
        assert websocket.metadata["dpjax/protocol"] == 1
        assert websocket.metadata["action_horizon"] == 7
        assert websocket.metadata["observations"]["state"]["shape"] == [3]
        websocket.send(b"rubbish")
        assert "not a msgpack message" in websocket.recv(5)
        websocket.send("a text")
        assert "text frame" in websocket.recv(5)
        websocket.send(MESSAGE)
        assert wire.unpack(websocket.recv(5), 1 << 20)["actions"].shape == (7, 2)


def test_metadata_can_be_replaced():
    service = serving.service(metadata={"image_resolution": None})
    with serving.serving(service) as (_, url), client(url) as websocket:
        assert websocket.metadata == {"image_resolution": None}


def test_health_readiness_and_metrics():
    service = serving.service()
    server = Server(service)
    url = f"ws://127.0.0.1:{server.start()}"
    assert get(url, "/healthz") == (200, "OK\n")
    assert get(url, "/readyz")[0] == 503
    # A client that comes early waits for the first message.
    with connect(url) as websocket:
        with pytest.raises(TimeoutError):
            websocket.recv(0.2)
        server.is_ready.set()
        assert get(url, "/readyz")[0] == 200
        websocket.recv(5)
        websocket.send(MESSAGE)
        websocket.recv(5)
        assert serving.wait_for(lambda: "dpjax_request_ms_p50" in get(url, "/metrics")[1])
        text = get(url, "/metrics")[1]
    assert {"dpjax_requests 1", "dpjax_clients 1", "dpjax_checkpoint 1"} <= set(text.splitlines())
    server.stop()


@pytest.mark.parametrize("scheme", ["Api-Key", "Bearer"])
def test_a_token_is_asked_for_before_the_upgrade(scheme):
    with serving.serving(serving.service(), token="secret") as (server, url):
        for header in ({}, {"Authorization": f"{scheme} wrong"}, {"Authorization": "Basic secret"}):
            with pytest.raises(InvalidStatus, match="401"), client(url, additional_headers=header):
                pass
            assert get(url, "/metrics", **header)[0] == 401
        with client(url, additional_headers={"Authorization": f"{scheme} secret"}):
            assert get(url, "/healthz")[0] == 200
        assert server.service.counts["unauthorized"] == 6


@pytest.mark.parametrize(
    "host, token, is_open, message",
    [
        ("127.0.0.1", "", False, "the token is empty"),
        ("0.0.0.0", None, False, "host 0.0.0.0 can be reached"),
        ("0.0.0.0", " ", True, "the token is empty"),
        ("192.168.1.5", None, False, "there is no token"),
    ],
)
def test_a_public_address_wants_a_token(host, token, is_open, message):
    with pytest.raises(UserError, match=message):
        access.check_public(host, token, is_open=is_open)
    access.check_public("0.0.0.0", "secret", is_open=False)
    access.check_public("0.0.0.0", None, is_open=True)
    access.check_public("localhost", None, is_open=False)


def test_pages_in_a_browser_are_refused():
    with serving.serving(serving.service()) as (_, url):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, origin="http://example.org")


def test_another_protocol_is_refused_with_both_versions():
    with serving.serving(serving.service()) as (_, url):
        with pytest.raises(InvalidStatus) as error:
            connect(url, additional_headers={"Dpjax-Protocol": "2"})
        assert error.value.response.body == b"protocol 2 was asked for, but this server speaks 1\n"


def test_a_port_in_use_is_one_line():
    with serving.serving(serving.service()) as (_, url):
        with pytest.raises(UserError, match="in use"):
            Server(serving.service(), port=int(url.rpartition(":")[2])).start()


def test_more_clients_than_the_limit_are_told_so():
    with serving.serving(serving.service(), limits=Limits(clients=2)) as (server, url):
        with client(url), client(url):
            with pytest.raises(InvalidStatus, match="503"):
                connect(url)
            assert get(url, "/healthz")[0] == 200
        assert serving.wait_for(lambda: not server._open)
        assert works(url)


def test_idle_and_slow_connections_do_not_disturb():
    limits = Limits(clients=8, open_timeout=0.5)
    with serving.serving(serving.service(), limits=limits) as (server, url):
        port = int(url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(15)]
        idle[0].sendall(b"GET / HT")  # and then nothing: a handshake that never ends
        assert works(url)
        beyond = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        assert serving.wait_for(lambda: server.service.counts["sockets_refused"] > 0)
        # All of them are closed when the time for a handshake is over.
        assert serving.wait_for(lambda: server._num_sockets == 0)
        assert works(url)
        for sock in idle + beyond:
            sock.close()


def test_a_message_beyond_the_limit_gets_a_line_and_a_huge_one_is_cut_off():
    with serving.serving(serving.service()) as (_, url), client(url) as websocket:
        limit = websocket.metadata["max_bytes"]
        websocket.send(b"\0" * (limit + 1))
        assert f"at most {limit} are read" in websocket.recv(5)
        websocket.send(MESSAGE)
        assert isinstance(websocket.recv(5), bytes)
        with pytest.raises(ConnectionClosed, match="1009"):
            websocket.send(b"\0" * (4 * limit + 1))
            websocket.recv(5)


def frame(size):
    """The header of a masked binary frame that declares `size` bytes."""
    return b"\x82\xff" + size.to_bytes(8, "big") + b"\0\0\0\0"


def upgraded(url):
    """A raw socket after the handshake and the first message."""
    port = int(url.rpartition(":")[2])
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"101" in sock.recv(4096)
    return sock


def test_a_gigabyte_that_is_only_declared_is_refused():
    with serving.serving(serving.service()) as (server, url):
        sock = upgraded(url)
        assert serving.wait_for(lambda: server._open)
        sock.sendall(frame(1 << 30))
        # The client does not close its side, and loses its place all the same.
        assert serving.wait_for(lambda: not server._open)
        sock.close()


def test_a_client_that_stops_reading_loses_its_place():
    big = lambda keys, obs, *_: np.zeros((len(keys), 5000, 2), np.float32)
    limits = Limits(send_timeout=0.3)
    with serving.serving(serving.service(big), limits=limits) as (server, url):
        sock = upgraded(url)
        sock.setblocking(False)
        message = b"\x82\xfe" + len(MESSAGE).to_bytes(2, "big") + b"\0\0\0\0" + MESSAGE
        stopped = lambda: server.service.counts["requests"] > 0 and not server._open
        until = time.monotonic() + 20
        while not stopped() and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(message * 50)
            time.sleep(0.001)
        assert stopped()
        assert works(url)
        sock.close()


def test_a_client_that_dies_while_its_chunk_is_sampled_frees_its_place():
    slow = lambda keys, obs, *_: time.sleep(0.3) or serving.chunks(keys, obs)
    with serving.serving(serving.service(slow)) as (server, url):
        sock = upgraded(url)
        sock.sendall(b"\x82\xfe" + len(MESSAGE).to_bytes(2, "big") + b"\0\0\0\0" + MESSAGE)
        assert serving.wait_for(lambda: server.service.worker.clients == 1)
        sock.close()
        assert works(url)
        assert serving.wait_for(lambda: not server._open, 1.0)


def test_stopping_answers_what_has_come_and_takes_nothing_new():
    slow = lambda keys, obs, *_: time.sleep(0.4) or serving.chunks(keys, obs)
    server = Server(serving.service(slow))
    url = f"ws://127.0.0.1:{server.start()}"
    server.is_ready.set()
    with client(url) as busy, client(url) as idle:
        busy.send(MESSAGE)
        assert serving.wait_for(lambda: server._connections(busy=True))
        start = time.monotonic()
        stop = threading.Thread(target=server.stop)
        stop.start()
        assert isinstance(busy.recv(5), bytes)
        with pytest.raises(ConnectionClosed, match="1001"):
            idle.recv(5)
        stop.join(5)
        assert time.monotonic() - start < 2.0
        with pytest.raises(OSError):
            connect(url)


def test_many_clients_at_once_are_served_alike():
    service = serving.service(max_batch=16)
    answers = {}

    def ask(i, url):
        with client(url) as websocket:
            for j in range(20):
                websocket.send(wire.pack({"state": [i, j, 0], "dpjax/seed": i}))
                reply = wire.unpack(websocket.recv(10), 1 << 20)
                answers.setdefault(i, []).append(reply["actions"][0, 0])

    with serving.serving(service) as (_, url):
        threads = [threading.Thread(target=ask, args=(i, url)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    expected = {i: [2 * (i + j) + 1 for j in range(20)] for i in range(16)}
    assert answers == expected
    assert service.counts["batches"] < service.counts["chunks"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_makes_it_tls(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    tls = access.tls_context(cert, key)
    trusting = ssl.create_default_context(cafile=cert)
    with serving.serving(serving.service(), tls=tls, token="secret") as (_, url):
        header = {"Authorization": "Bearer secret"}
        with client(url, ssl=trusting, additional_headers=header) as websocket:
            websocket.send(MESSAGE)
            assert isinstance(websocket.recv(5), bytes)
        with pytest.raises(ssl.SSLError):
            connect(url)  # its issuer is unknown
        with pytest.raises((OSError, EOFError, InvalidMessage)):
            connect(url.replace("wss", "ws"))
    with pytest.raises(UserError, match="not a certificate"):
        access.tls_context(key, key)
