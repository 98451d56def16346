"""One client's messages and their answers, without a socket.

A message has an `endpoint`, "infer" if it names none:

    infer    an observation -> {"actions": [H, Da], "server_timing": …, …}
    observe  an observation -> the text "ok": it joins the history, and nothing is sampled
    reset    -> the text "reset successful": another episode, and the newest checkpoint
    plan     a whole batch with keys -> {"plan": [B, Tp, Da]}: what RemotePolicy asks for

An error is one line of text, and the next message is answered as if nothing had been.
"""

from collections.abc import Callable
import logging
import time
from typing import Any

import numpy as np

from dpjax.core.errors import UserError, choose
from dpjax.serving import contract as contracts
from dpjax.serving import requests, wire
from dpjax.serving.batching import Request
from dpjax.serving.service import REPEATED, Service
from dpjax.serving.session import Ask, ChunkSession, StepSession

log = logging.getLogger("dpjax")


class Connection:
    """The conversation with one client.

    is_busy: whether a message has come and its answer is not sent yet.
    """

    def __init__(self, service: Service):
        self.is_busy = False
        self._service = service
        self._received = 0.0
        self._total: float | None = None  # seconds from receiving to sending, of the last reply
        self._policy_seconds = 0.0
        self._endpoints: dict[str, Callable[[dict], dict[str, Any] | str]] = {
            "infer": self._infer,
            "observe": self._observe,
            "reset": self._reset,
            "plan": self._plan,
        }
        self._start(service.next_seed())

    def answer(self, data: bytes | str) -> bytes | str:
        """The answer to a message: bytes, or one line of text. Never raises."""
        # Times are measured from here, after the websocket library has read the whole frame.
        self.is_busy = True
        self._received = time.monotonic()
        self._policy_seconds = 0.0
        counts = self._service.counts
        counts.add("requests")
        try:
            message = wire.unpack(data, self._service.contract.max_bytes)
            # openpi's client names no endpoint; RoboArena's names "infer" and "reset".
            endpoint = message.get("endpoint", "infer")
            reply = choose(self._endpoints, str(endpoint)[:40], "endpoint")(message)
            return reply if isinstance(reply, str) else wire.pack(self._timed(reply))
        except UserError as error:
            # Everything that the client can correct, from a wrong dtype to a missed deadline.
            counts.add("refused")
            return one_line(error)
        except Exception:
            # A bug, or a policy that fails. The traceback stays here: it is not the client's.
            counts.add("errors")
            log.exception("a request failed")
            return "internal error: the server's log has the reason."

    def sent(self) -> None:
        """To be called when the answer has been sent."""
        # openpi tells it in the next reply: only then is it known how long sending took.
        self.is_busy = False
        self._total = time.monotonic() - self._received
        self._service.counts.time("request", self._total)

    def _start(self, seed: int) -> None:
        """Begins an episode, with the version that is the newest now."""
        # A connection that keeps its version never sees a chunk of another one in an episode.
        service = self._service
        contract = service.contract
        self._version = service.version
        options: dict[str, int] = {"observed": contract.observed, "delay": service.delay}
        if service.reply == "step":
            options["executed"] = contract.executed
            self._session: Any = StepSession(self._sample, seed, **options)
        else:
            self._session = ChunkSession(self._sample, seed, **options)

    def _sample(
        self,
        key_data: np.ndarray,
        obs: dict[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
        *,
        deadline: float,
    ) -> np.ndarray:
        """What the session takes for the policy: asks the worker."""
        return self._ask(Request(self._version, key_data, obs, previous, committed, deadline))

    def _ask(self, request: Request) -> np.ndarray:
        """The worker's answer; its time is kept for the reply."""
        # The client's thread sleeps here until its batch is sampled.
        chunks = self._service.worker.ask(request)
        self._policy_seconds = request.seconds
        return chunks

    def _read(self, message: dict[str, Any]) -> tuple[dict[str, np.ndarray], Ask, dict]:
        """(observation, what the request says about itself, values that the reply repeats)."""
        contract = self._service.contract
        # {"dpjax": {"step": 3}} is the same as {"dpjax/step": 3}.
        values = contracts.flatten(message)
        obs, ignored = contracts.read(contract, values)
        # Not an error: clients send what other policies read too, such as a prompt.
        for name in ignored:
            text = "observation %r is not one of %s: it is ignored."
            self._service.warn_once(text, name[:60], ", ".join(contract.columns))
        request_id = requests.read_id(values)
        repeated = {} if request_id is None else {"dpjax/id": request_id}
        return obs, requests.read_ask(values, contract), repeated

    def _infer(self, message: dict[str, Any]) -> dict[str, Any]:
        """An observation -> actions."""
        obs, ask, repeated = self._read(message)
        actions, extra = self._session.infer(obs, ask)
        if extra.get("history") == "repeated":
            self._service.counts.add("repeated_histories")
            self._service.warn_once(REPEATED, self._service.contract.observed)
        # No other arrays than the actions: ActionChunkBroker slices every array of a reply.
        checkpoint = self._version.about.get("checkpoint")
        return {"actions": actions, "checkpoint": checkpoint, **extra, **repeated}

    def _observe(self, message: dict[str, Any]) -> str:
        """An observation that joins the history."""
        obs, ask, _ = self._read(message)
        self._session.observe(obs, ask)
        return "ok"

    def _reset(self, message: dict[str, Any]) -> str:
        """Another episode."""
        # RoboArena expects text as the answer, and openpi's client never asks.
        ask = requests.read_ask(contracts.flatten(message), self._service.contract)
        self._start(self._service.next_seed() if ask.seed is None else ask.seed)
        return "reset successful"

    def _plan(self, message: dict[str, Any]) -> dict[str, Any]:
        """A batch with the caller's keys -> its action chunks, whatever this client did before."""
        contract = self._service.contract
        batch = requests.read_batch(contract, message)
        ask = requests.read_ask(contracts.flatten(message), contract)
        # The newest version: such a request belongs to no episode of this connection.
        version = self._service.version
        chunks = self._ask(Request(version, *batch, deadline=ask.deadline))
        return {"plan": chunks, "checkpoint": version.about.get("checkpoint")}

    def _timed(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A reply with its times in milliseconds: of this request, and of the policy in it."""
        milliseconds = {
            "infer_ms": 1e3 * (time.monotonic() - self._received),
            "policy_ms": 1e3 * self._policy_seconds,
        }
        if self._total is not None:
            milliseconds["prev_total_ms"] = 1e3 * self._total
        return {**reply, "server_timing": milliseconds}


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 1,000 characters."""
    # Messages of other libraries can contain line breaks.
    return " ".join(str(error).split())[:1000]
