"""From action chunks to actions: the history of observations and the queue of actions.

An action chunk predicts Tp actions. Its first one belongs to the oldest of the To observations, so
the action for the present is number To - 1. From there, Ta actions are executed before the next
chunk is sampled (receding horizon, Chi et al. 2023, fig. 2):

    predicted   0 … To-2 | To-1 … To-2+Ta | To-1+Ta … Tp-1
                  past   |    executed    |    thrown away            (1)

Equation (1) is written here and nowhere else in dpjax.
"""

from collections.abc import Mapping
import functools
from typing import Protocol

import jax
import numpy as np

from dpjax.core.errors import UserError

PRNGKey = jax.Array


class SampleActions(Protocol):
    """A policy as a function from observations to action chunks, with its params inside."""

    def __call__(
        self,
        rng: PRNGKey,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        /,
    ) -> np.ndarray | jax.Array:
        """Returns action chunks [B, Tp, Da] in data units.

        rng: keys [B], one per example; a policy may also take a single key.
        obs: {name: [B, To, ...]} in data units.
        previous: the last chunks moved to the present, [B, Tp, Da], and NaN in the steps that
            they do not reach; None before the first chunk.
        """
        ...


class Controller:
    """Executes the action chunks of a policy in B environments, or in a single one.

    Every environment has its own key, history and queue. What happens in one does not depend on
    the others. The policy always sees all B environments, so that one program is enough; those
    that still have actions in their queue ignore the new chunk.

    The policy gets the last chunks as `previous`, moved to the present: step j of `previous`
    belongs to the same time as step j of the new chunk. The Ta last steps, which the last chunk
    does not reach, are NaN, and so are all steps of an environment that has been reset since its
    last chunk. `previous` is None before the first chunk. (The chunks of environments whose
    queue is not empty are moved too, but those environments ignore the new chunk.)

    chunk: [B, Tp, Da] the last action chunk of every environment; None before the first one.
    """

    def __init__(self, sample_actions: SampleActions, *, observed: int, executed: int):
        """observed: To, the steps that the policy observes. executed: Ta, of each chunk."""
        self.sample_actions = sample_actions
        self.observed = observed
        self.executed = executed
        self.chunk: np.ndarray | None = None
        self._key_data: np.ndarray | None = None

    def reset(self, keys: PRNGKey, indices: np.ndarray | list[int] | None = None) -> None:
        """Starts episodes in all environments, or in those of the given indices.

        keys: [B], one per environment, or [n] for n indices. A single key [] makes this the
            controller of a single environment: `act` then takes {name: [D]} and returns [Da].

        Raises UserError for keys that `jax.random.key` did not make.
        """
        if not jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"keys must be made by jax.random.key, but these are {keys.dtype} numbers.",
                argument="keys",
            )
        data = np.asarray(jax.random.key_data(keys))
        if indices is None:
            self._reset_all(data, single=keys.ndim == 0, impl=str(jax.random.key_impl(keys)))
            return
        if self._key_data is None:
            raise UserError("Controller.reset was called with indices before reset(keys).")
        indices = np.asarray(indices, int)
        self._key_data[indices] = data
        self._is_fresh[indices] = True
        self._num_chunks[indices] = 0
        self._num_left[indices] = 0
        # No warm start from the chunk of the episode before.
        if self.chunk is not None:
            self.chunk[indices] = np.nan

    def _reset_all(self, key_data: np.ndarray, *, single: bool, impl: str) -> None:
        """Forgets everything and starts an episode per key."""
        self._single = single
        self._key_impl = impl
        self._key_data = np.array(key_data[None] if single else key_data)
        batch_size = len(self._key_data)
        self._num_chunks = np.zeros(batch_size, np.int32)  # sampled in each episode
        self._num_left = np.zeros(batch_size, np.int32)  # actions left in each queue
        self._is_fresh = np.ones(batch_size, bool)  # whether its episode has no observation yet
        self._history: dict[str, np.ndarray] = {}  # {name: [B, To, ...]}
        self.chunk = None

    def act(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The next action [B, Da] of every environment.

        obs: the latest observations {name: [B, ...]}.

        Raises UserError if the sizes of observations or chunks do not fit, or if a chunk that
        would be executed is not finite.
        """
        if self._key_data is None:
            raise UserError("Controller.act was called before reset(keys).")
        # 1. Remember the observations. After this no environment is at its first one.
        for name, x in obs.items():
            self._observe(name, np.asarray(x)[None] if self._single else np.asarray(x))
        self._is_fresh = np.zeros_like(self._is_fresh)
        # 2. Sample new chunks where a queue is empty.
        if (self._num_left == 0).any():
            self._refill()
        assert self.chunk is not None  # every queue was empty at the start
        # 3. Take the next action of every queue. Queues may be at different places.
        first = self.observed - 1
        queue = self.chunk[:, first : first + self.executed]  # equation (1), [B, Ta, Da]
        actions = queue[np.arange(len(queue)), self.executed - self._num_left]
        self._num_left -= 1
        return actions[0] if self._single else actions

    def _observe(self, name: str, x: np.ndarray) -> None:
        """Appends x [B, ...] to the history, which starts with To copies of the first one."""
        if len(x) != len(self._is_fresh):
            raise UserError(
                f"obs: {name!r} is of {len(x)} environments, but the controller was reset with "
                f"{len(self._is_fresh)} keys; give one key per environment.",
                argument="obs",
            )
        repeated = np.repeat(x[:, None], self.observed, axis=1)
        before = self._history.get(name, repeated)
        shifted = np.concatenate([before[:, 1:], x[:, None]], axis=1)
        is_fresh = self._is_fresh.reshape((-1,) + (1,) * x.ndim)
        # A new array each time, because jax may still be reading the last one.
        self._history[name] = np.where(is_fresh, repeated, shifted)

    def _refill(self) -> None:
        """Samples a chunk for every environment; those with an empty queue take theirs."""
        is_empty = self._num_left == 0
        # A chunk's noise depends on the episode's key and on the number of chunks before it.
        keys = _fold(self._key_data, self._num_chunks, impl=self._key_impl)
        previous = None if self.chunk is None else advance(self.chunk, self.executed)
        chunk = np.array(self.sample_actions(keys, dict(self._history), previous))
        self._check_chunk(chunk, is_empty)
        if self.chunk is None:
            self.chunk = np.full_like(chunk, np.nan)
        self.chunk[is_empty] = chunk[is_empty]
        self._num_left[is_empty] = self.executed
        self._num_chunks[is_empty] += 1

    def _check_chunk(self, chunk: np.ndarray, is_empty: np.ndarray) -> None:
        """Raises UserError if the chunks [B, Tp, Da] cannot be executed where a queue is empty."""
        batch_size = len(is_empty)
        if chunk.ndim != 3 or len(chunk) != batch_size:
            raise UserError(
                f"sample_actions returned actions of shape {list(chunk.shape)} for {batch_size} "
                f"environments: it must return [{batch_size}, Tp, Da].",
                argument="sample_actions",
            )
        needed = self.observed - 1 + self.executed
        if needed > chunk.shape[1]:
            raise UserError(
                f"executed={self.executed} does not fit: observed - 1 + executed = {needed} "
                f"steps are needed, but Tp = {chunk.shape[1]} are predicted. Lower executed.",
                argument="executed",
            )
        # Chunks that are ignored may be broken: they are not executed.
        broken = np.flatnonzero(is_empty & ~is_finite(chunk))
        if broken.size:
            raise UserError(
                f"the sampled actions of environments {broken.tolist()} are not finite: none is "
                "executed."
            )


def advance(chunk: np.ndarray, steps: int) -> np.ndarray:
    """Chunks [B, Tp, Da] as seen `steps` later: the first steps are over, the last are NaN."""
    unknown = np.full_like(chunk[:, :steps], np.nan)
    return np.concatenate([chunk[:, steps:], unknown], axis=1)


def is_finite(chunk: np.ndarray) -> np.ndarray:
    """Whether each of the chunks [B, Tp, Da] holds finite numbers only, bool [B]."""
    return np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1)


@functools.partial(jax.jit, static_argnames="impl")
def _fold(key_data: jax.Array, counts: jax.Array, *, impl: str) -> PRNGKey:
    """Keys [B] of the next chunks: each environment's key folded with its count of chunks."""
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(key_data, impl=impl), counts)
