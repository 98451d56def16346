"""32 clients at 10 control steps per second for a minute, with one sampling step."""

import asyncio
import threading

import pytest
from support import serving

from dpjax import serve
from experiments.serving import fuzz, load


def test_a_short_load_is_counted():
    with serving.serving(serving.service()) as (server, url):
        clients = asyncio.run(load.drive(url, clients=4, seconds=1.0, hz=20, executed=4))
        result = load.summarize(clients)
    assert result["requests"] == 4 * 5 and result["fairness"] == 1.0
    # The state of the load has five numbers, that of this policy three.
    assert result["errors"] == 4 * 20
    assert server.service.counts["refused"] == 4 * 20


def test_hostile_messages_through_a_socket_leave_a_good_client_alone():
    service = serving.service(shapes={"state": serving.vector(5)})
    with serving.serving(service) as (_, url):
        result = asyncio.run(fuzz.both(url, 2_000, seed=3))
    assert result["fuzzed_messages"] == 2_000 and 1_000 < result["refused"]
    assert result["good_client"]["requests"] > 0 and result["good_client"]["errors"] == 0
    assert service.counts["errors"] == 0


@pytest.mark.slow
def test_a_minute_of_32_clients():
    args = ["--run", "pusht_demo", "--sampler", "ddim", "--steps", "1", "--port", "0"]
    _, server = serve.set_up(serve.arguments(args))
    port = server.start()
    serve.warm_up(server.service)
    server.is_ready.set()
    threading.Thread(target=server.service.worker.run, daemon=True).start()
    url = f"ws://127.0.0.1:{port}"
    result = load.summarize(asyncio.run(load.drive(url, 32, seconds=60, hz=10, executed=8)))
    server.stop(1.0)
    assert result["errors"] == 0 and server.service.counts["errors"] == 0
    assert result["fairness"] >= 0.9
    # The times are measured by experiments/serving, on a machine at rest.
    assert result["requests"] == 32 * 75
