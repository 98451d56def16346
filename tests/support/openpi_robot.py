"""A robot with the unmodified client of openpi; runs in .venv-openpi, without dpjax.

    python openpi_robot.py HOST PORT

Prints a line of JSON about what the client sees. Then it reads lines: "episode" connects anew, and
a JSON list is a state, for which it prints the action.
"""

import json
import sys
import urllib.request

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

STATE = np.array([250.0, 260.0, 300.0, 200.0, 1.0])


def failure(client, observation):
    """The last line of the error for an observation."""
    try:
        client.infer(observation)
    except RuntimeError as error:
        return str(error).splitlines()[-1]
    return ""


def look(host, port):
    """What a client sees: the greeting, answers, errors, and a broker's actions."""
    with urllib.request.urlopen(f"http://{host}:{port}/healthz") as response:
        health = response.read().decode()
    client = WebsocketClientPolicy(host, port)
    good = {"observation/state": STATE, "prompt": "push the T"}
    first = client.infer(good)
    errors = [
        failure(client, {"observation/stat": STATE}),
        failure(client, {"observation/state": STATE[:4]}),
        failure(client, {"observation/state": STATE * np.nan}),
        failure(client, {"observation/state": np.zeros((1, 400, 800))}),
    ]
    second = client.infer(good)
    broker = ActionChunkBroker(WebsocketClientPolicy(host, port), first["actions"].shape[0])
    number = first["actions"].shape[0]
    return {
        "health": health,
        "metadata": client.get_server_metadata(),
        "shape": list(first["actions"].shape),
        "dtype": str(first["actions"].dtype),
        "timing": sorted(second["server_timing"]),
        "errors": errors,
        "finite": bool(np.isfinite(second["actions"]).all()),
        "broker": [broker.infer(good)["actions"].tolist() for _ in range(number)],
    }


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    print(json.dumps(look(host, port)), flush=True)
    client = None
    for line in sys.stdin:
        if line.strip() == "episode":
            client = WebsocketClientPolicy(host, port)
            continue
        actions = client.infer({"observation/state": np.array(json.loads(line))})["actions"]
        print(json.dumps(actions[0].tolist()), flush=True)


if __name__ == "__main__":
    main()
