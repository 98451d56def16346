"""One client's episode: its history, its noise, and its last action chunk.

In step mode a client asks at every control step, and dpjax's Controller answers with one action:
exactly what it would do without a network between. In chunk mode a client asks once for several
steps and executes what it likes of the answer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.chunks import advance, from_now
from dpjax.inference.controller import Controller
from dpjax.serving.history import History, Obs, steps_between

# One small program in place of several: key [] and count -> key data [1, words].
_chunk_key = jax.jit(lambda key, count: jax.random.key_data(jax.random.fold_in(key, count))[None])
_key_data = jax.jit(jax.random.key_data)


class Ask(NamedTuple):
    """What a request says besides its observation.

    step: number of the control step; None if the client does not count.
    committed: how many actions from now on will be executed whatever the chunk says.
    seed: of this chunk's noise, or of the episode's if it is reset.
    deadline: seconds of time.monotonic.
    """

    step: int | None = None
    committed: int | None = None
    seed: int | None = None
    deadline: float = float("inf")


# (key data [n, words], obs {name: [n, To, ...]}[, previous[, committed]], deadline=…) -> chunks
Sample = Callable[..., np.ndarray]


class StepSession:
    """One action per request, by dpjax's own Controller."""

    def __init__(self, sample: Sample, seed: int, *, observed: int, executed: int, delay: int = 0):
        """delay: in control steps, see `Controller`."""
        self._sample = sample
        self._deadline = float("inf")
        # The Controller is the one of simulations and robots, so all its rules hold here too.
        self._controller = Controller(
            self._sample_actions, observed=observed, executed=executed, delay=delay
        )
        self._controller.reset(jax.random.key(seed))
        self._last_step: int | None = None

    def _sample_actions(self, keys: jax.Array, obs: Obs, *optional: Any) -> np.ndarray:
        """What the Controller takes for the policy."""
        return self._sample(np.asarray(_key_data(keys)), obs, *optional, deadline=self._deadline)

    def infer(self, obs: Obs, ask: Ask) -> tuple[np.ndarray, dict[str, Any]]:
        """(the action of this step [1, Da], further values of the reply)."""
        for name, value in (("dpjax/seed", ask.seed), ("dpjax/committed", ask.committed)):
            if value is not None:
                raise UserError(f"{name} is not read with --reply step; reset takes a seed.")
        if any(len(x) != 1 for x in obs.values()) and self._controller.observed > 1:
            raise UserError(
                "observation: a history, but with --reply step the server keeps it: send the "
                "newest step alone."
            )
        # The Controller counts calls, not steps: frames that never came are reported.
        passed = 1
        if ask.step is not None and self._last_step is not None:
            passed = steps_between(self._last_step, ask.step)
        self._deadline = ask.deadline
        action = self._controller.act({name: x[-1] for name, x in obs.items()})
        self._last_step = ask.step
        return action[None], {"missed": passed - 1} if passed > 1 else {}

    def observe(self, obs: Obs, ask: Ask) -> None:
        """Refused, since every step has an action."""
        raise UserError("endpoint 'observe' is for --reply chunk; with --reply step, infer.")


class ChunkSession:
    """All actions from the present on, per request."""

    def __init__(self, sample: Sample, seed: int, *, observed: int, delay: int = 0):
        """delay: committed steps of each chunk, unless the request says another number."""
        self._sample = sample
        self._delay = delay
        self._key = jax.random.key(seed)
        self._history = History(observed)
        self._count = 0  # chunks of this episode
        self._chunk: np.ndarray | None = None  # [1, Tp, Da], the last one
        self._age: int | None = 0  # steps since its observation; None if that is unknown

    def observe(self, obs: Obs, ask: Ask) -> None:
        """Adds the frame of one step to the history."""
        self._add(obs, ask, by_observe=True)

    def infer(self, obs: Obs, ask: Ask) -> tuple[np.ndarray, dict[str, Any]]:
        """(actions [Tp - To + 1, Da] from the present on, further values of the reply)."""
        # 1. What the policy observes, and the last chunk moved to the present.
        passed = self._add(obs, ask)
        history, origin = self._history.read()
        optional: tuple = ()
        if self._chunk is not None:
            # NaN beyond its end, and everywhere if nobody knows how old it is.
            length = self._chunk.shape[1]
            optional = (advance(self._chunk, length if self._age is None else self._age),)
            committed = self._delay if ask.committed is None else ask.committed
            if committed:
                optional = (*optional, np.array([committed], np.int32))
        # 2. Sample with the noise that a Controller would use which executes what this client does.
        if ask.seed is None:
            key_data = _chunk_key(self._key, self._count)
        else:
            key_data = _chunk_key(jax.random.key(ask.seed), 0)
        batch = {name: x[None] for name, x in history.items()}
        chunk = self._sample(np.asarray(key_data), batch, *optional, deadline=ask.deadline)
        # 3. Remember it.
        # If sampling failed, all this is as before, and the client can ask again.
        self._chunk = np.array(chunk)
        self._age = 0
        self._count += 1
        missed = {"missed": passed - 1} if ask.step is not None and (passed or 1) > 1 else {}
        return from_now(chunk, self._history.observed)[0], {"history": origin, **missed}

    def _add(self, obs: Obs, ask: Ask, by_observe: bool = False) -> int | None:
        """Adds a frame to the history; the last chunk gets older. Returns the steps that passed."""
        passed = self._history.add(obs, ask.step, by_observe=by_observe)
        is_known = passed is not None and self._age is not None
        # A chunk does not get older than its end.
        length = 0 if self._chunk is None else self._chunk.shape[1]
        self._age = min(self._age + passed, length) if is_known else None
        return passed


def warm_up(observed: int, executed: int) -> None:
    """Compiles the small programs that a session of either mode calls."""
    obs = {"x": np.zeros((1, 1))}
    predicted = observed + executed
    sample = lambda key_data, obs, *_, deadline: np.zeros((1, predicted, 1))
    for seed in (None, 0):
        ChunkSession(sample, 0, observed=observed).infer(obs, Ask(seed=seed))
    StepSession(sample, 0, observed=observed, executed=executed).infer(obs, Ask())
