"""One client's messages and their answers, without a socket.

A message has an `endpoint`, "infer" if it names none:

    infer    an observation -> {"actions": [H, Da], "server_timing": …, …}
    observe  an observation -> the text "ok": it joins the history, and nothing is sampled
    reset    -> the text "reset successful": another episode, and the newest checkpoint
    plan     a whole batch with keys -> {"plan": [B, Tp, Da]}: what RemotePolicy asks for

An error is one line of text, and the next message is answered as if nothing had been.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
import logging
import secrets
import time
from typing import Any

import numpy as np

from dpjax.core.errors import UserError, choose
from dpjax.serving import contract as contracts
from dpjax.serving import requests, wire
from dpjax.serving.contract import Contract
from dpjax.serving.metrics import Counts
from dpjax.serving.session import Ask, ChunkSession, StepSession
from dpjax.serving.worker import Request, Version, Worker

REPEATED = (
    "a client sends one frame per chunk, and the policy observes To = %d: the frame is repeated. "
    "On Push-T that costs .95/.55 -> .90/.38 in score/success. Send every step (--reply step, or "
    "endpoint observe), or the last To steps as one array."
)

log = logging.getLogger("dpjax")


@dataclass
class Service:
    """What all connections share.

    version: of episodes that begin now; `serving.follow` replaces it.
    reply: "chunk" or "step". delay: in control steps.
    seed: makes the noise of all episodes a function of the order in which they begin; None draws.
    metadata: replaces the first message, for clients that expect another one.
    """

    contract: Contract
    worker: Worker
    counts: Counts
    version: Version
    reply: str = "chunk"
    delay: int = 0
    seed: int | None = None
    metadata: dict[str, Any] | None = None
    warned: set[str] = field(default_factory=set)

    def warn_once(self, text: str, *args: Any) -> None:
        """Logs a warning the first time that it is given."""
        if text % args not in self.warned and len(self.warned) < 100:
            self.warned.add(text % args)
            log.warning(text, *args)

    def next_seed(self) -> int:
        """The seed of an episode whose client names none."""
        self.counts.add("episodes")
        if self.seed is None:
            return secrets.randbits(31)
        return episode_seed(self.seed, self.counts["episodes"])

    def gauges(self) -> dict[str, float]:
        """Numbers of the present moment, for /metrics."""
        return {"checkpoint": self.version.about.get("checkpoint") or 0}

    def describe(self) -> dict[str, Any]:
        """The first message that a client gets."""
        if self.metadata is not None:
            return self.metadata
        contract = self.contract
        is_step = self.reply == "step"
        shapes = contract.obs_shapes.items()
        return {
            "server": "dpjax",
            "dpjax/protocol": wire.PROTOCOL,
            **self.version.about,
            "observations": contracts.describe(contract),
            "policy_observations": {k: [list(x.shape), str(np.dtype(x.dtype))] for k, x in shapes},
            "reply": self.reply,
            "delay": self.delay,
            "action_horizon": 1 if is_step else contract.predicted - contract.observed + 1,
            "action_dim": contract.action,
            "observed": contract.observed,
            "predicted": contract.predicted,
            "executed": contract.executed,
            "max_bytes": contract.max_bytes,
            "max_batch": self.worker.max_batch,
        }


def episode_seed(seed: int, number: int) -> int:
    """The seed of the episode `number`, from 1 on, of a server with this seed."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


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
        self.is_busy = True
        self._received = time.monotonic()
        self._policy_seconds = 0.0
        counts = self._service.counts
        counts.add("requests")
        try:
            message = wire.unpack(data, self._service.contract.max_bytes)
            endpoint = message.get("endpoint", "infer")
            reply = choose(self._endpoints, str(endpoint)[:40], "endpoint")(message)
            return reply if isinstance(reply, str) else wire.pack(self._timed(reply))
        except UserError as error:
            counts.add("refused")
            return one_line(error)
        except Exception:
            # A bug, or a policy that fails. The traceback stays here: it is not the client's.
            counts.add("errors")
            log.exception("a request failed")
            return "internal error: the server's log has the reason."

    def sent(self) -> None:
        """To be called when the answer has been sent."""
        self.is_busy = False
        self._total = time.monotonic() - self._received
        self._service.counts.time("request", self._total)

    def _start(self, seed: int) -> None:
        """Begins an episode, with the version that is the newest now."""
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
        chunks = self._service.worker.ask(request)
        self._policy_seconds = request.seconds
        return chunks

    def _read(self, message: dict[str, Any]) -> tuple[dict[str, np.ndarray], Ask, dict]:
        """(observation, what the request says about itself, values that the reply repeats)."""
        contract = self._service.contract
        values = contracts.flatten(message)
        obs, ignored = contracts.read(contract, values)
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
        checkpoint = self._version.about.get("checkpoint")
        return {"actions": actions, "checkpoint": checkpoint, **extra, **repeated}

    def _observe(self, message: dict[str, Any]) -> str:
        """An observation that joins the history."""
        obs, ask, _ = self._read(message)
        self._session.observe(obs, ask)
        return "ok"

    def _reset(self, message: dict[str, Any]) -> str:
        """Another episode."""
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
    return " ".join(str(error).split())[:1000]
