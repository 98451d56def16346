"""What all connections of a server share: the policy, the worker, the counts, the options."""

from dataclasses import dataclass, field
import logging
import secrets
from typing import Any

import numpy as np

from dpjax.serving import contract as contracts
from dpjax.serving import wire
from dpjax.serving.batching import Version
from dpjax.serving.contract import Contract
from dpjax.serving.metrics import Counts
from dpjax.serving.worker import Worker

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
        # With a bound: what clients send decides how many different texts there are.
        if text % args not in self.warned and len(self.warned) < 100:
            self.warned.add(text % args)
            log.warning(text, *args)

    def next_seed(self) -> int:
        """The seed of an episode whose client names none."""
        # Two clients must not have the same noise, so every episode draws its own seed.
        self.counts.add("episodes")
        if self.seed is None:
            return secrets.randbits(31)
        return episode_seed(self.seed, self.counts["episodes"])

    def gauges(self) -> dict[str, float]:
        """Numbers of the present moment, for /metrics."""
        # An observation far outside of the training data is the first sign of a wrong unit.
        far = sum(self.version.far().values())
        checkpoint = self.version.about.get("checkpoint") or 0
        return {"checkpoint": checkpoint, "far_observations": far}

    def describe(self) -> dict[str, Any]:
        """The first message that a client gets."""
        # Some clients want exactly their own keys (RoboArena), so the file replaces everything.
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
            # After the task's `observe`: what endpoint `plan` takes, {name: [[To, …], dtype]}.
            "policy_observations": {k: [list(x.shape), str(np.dtype(x.dtype))] for k, x in shapes},
            "reply": self.reply,
            "delay": self.delay,
            # The length of `actions` in a reply; a broker may execute fewer, such as `executed`.
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
