"""From action chunks to actions: the history of observations and the queue of actions.

An action chunk holds Tp actions. Action 0 belongs to the time of the oldest of the To observed
steps, so action To - 1 belongs to the present. From there on, Ta actions are executed before the
next chunk is sampled (receding horizon, Chi et al. 2023, fig. 2):

    predicted   0 … To-2 | To-1 … To-2+Ta | To-1+Ta … Tp-1
                  past   |    executed    |    thrown away            (1)

All indices of (1) are computed in this file and in no other.
"""

from collections.abc import Mapping
import functools
from typing import Protocol

import jax
import numpy as np

from dpjax.core.errors import UserError

PRNGKey = jax.Array


class SampleActions(Protocol):
    """A policy with its params, as a function from observations to action chunks."""

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
        previous: [B, Tp, Da] the last chunks, shifted to the present and NaN in the steps that
            they do not reach; None before the first chunk.
        """
        ...


class Controller:
    """Executes the action chunks of a policy in B environments, or in a single one.

    Every environment has its own key, history and queue, and does not depend on the others. The
    policy always samples for all B environments, so that a single program is enough. Those that
    still have actions in their queue ignore the new chunk.

    The policy gets the last chunks as `previous`, shifted to the present: step j of `previous`
    belongs to the same time as step j of the new chunk. The last Ta steps, which the last chunk
    does not reach, are NaN. All steps are NaN for an environment that has been reset since its
    last chunk. `previous` is None before the first chunk.

    chunk: [B, Tp, Da] the last action chunk of every environment; None before the first one.
    """

    def __init__(self, sample_actions: SampleActions, *, observed: int, executed: int):
        """observed: To. executed: Ta, the number of actions executed of each chunk."""
        self.sample_actions = sample_actions
        self.observed = observed
        self.executed = executed
        self.chunk: np.ndarray | None = None
        self._key_data: np.ndarray | None = None  # None until `reset`

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
        # Keys are stored as the numbers that they consist of: numpy can assign to some of them.
        data = np.asarray(jax.random.key_data(keys))
        if indices is None:
            self._reset_all(data, single=keys.ndim == 0, impl=str(jax.random.key_impl(keys)))
            return
        if self._key_data is None:
            raise UserError("Controller.reset was called with indices before reset(keys).")
        # Only these environments start again; the queues of the others go on.
        indices = np.asarray(indices, int)
        self._key_data[indices] = data
        self._is_fresh[indices] = True
        self._num_chunks[indices] = 0
        self._num_left[indices] = 0
        # No warm start from the last chunk of the previous episode.
        if self.chunk is not None:
            self.chunk[indices] = np.nan

    def _reset_all(self, key_data: np.ndarray, *, single: bool, impl: str) -> None:
        """Forgets everything and starts one episode per key."""
        self._single = single
        self._key_impl = impl
        # A copy, [B, words], because `reset` with indices writes into it.
        self._key_data = np.array(key_data[None] if single else key_data)
        batch_size = len(self._key_data)
        self._num_chunks = np.zeros(batch_size, np.int32)  # chunks sampled in each episode
        self._num_left = np.zeros(batch_size, np.int32)  # actions left in each queue
        self._is_fresh = np.ones(batch_size, bool)  # True before the first observation
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
        # 1. Add the observations to the history.
        for name, x in obs.items():
            self._observe(name, np.asarray(x)[None] if self._single else np.asarray(x))
        self._is_fresh = np.zeros_like(self._is_fresh)
        # 2. Sample new chunks where a queue is empty.
        if (self._num_left == 0).any():
            self._refill()
        assert self.chunk is not None  # after a reset all queues are empty
        # 3. Take the next action of every queue; each queue has its own position.
        first = self.observed - 1
        queue = self.chunk[:, first : first + self.executed]  # equation (1), [B, Ta, Da]
        actions = queue[np.arange(len(queue)), self.executed - self._num_left]
        self._num_left -= 1
        # [Da] for a single environment, otherwise [B, Da].
        return actions[0] if self._single else actions

    def _observe(self, name: str, x: np.ndarray) -> None:
        """Appends x [B, ...] to the history, which begins as To copies of the first observation."""
        if len(x) != len(self._is_fresh):
            raise UserError(
                f"obs: {name!r} is of {len(x)} environments, but the controller was reset with "
                f"{len(self._is_fresh)} keys; give one key per environment.",
                argument="obs",
            )
        # The two cases: the first observation of an episode, and all later ones.
        repeated = np.repeat(x[:, None], self.observed, axis=1)  # [B, To, ...]
        before = self._history.get(name, repeated)
        shifted = np.concatenate([before[:, 1:], x[:, None]], axis=1)  # [B, To, ...]
        is_fresh = self._is_fresh.reshape((-1,) + (1,) * x.ndim)  # [B, 1, ...]
        # A new array each time, because jax may still be reading the old one.
        self._history[name] = np.where(is_fresh, repeated, shifted)

    def _refill(self) -> None:
        """Samples chunks for all environments; those with an empty queue use the new chunk."""
        is_empty = self._num_left == 0
        # 1. Sample. The noise of a chunk depends on the key of the episode and on the number of
        # chunks before it, but not on the other environments.
        keys = _fold(self._key_data, self._num_chunks, impl=self._key_impl)
        previous = None if self.chunk is None else advance(self.chunk, self.executed)
        # Environments with actions in their queue have chunks shifted too far; they ignore theirs.
        chunk = np.array(self.sample_actions(keys, dict(self._history), previous))
        self._check_chunk(chunk, is_empty)
        # 2. Fill the empty queues.
        if self.chunk is None:
            self.chunk = np.full_like(chunk, np.nan)
        self.chunk[is_empty] = chunk[is_empty]
        self._num_left[is_empty] = self.executed
        self._num_chunks[is_empty] += 1

    def _check_chunk(self, chunk: np.ndarray, is_empty: np.ndarray) -> None:
        """Raises UserError if chunks [B, Tp, Da] have a wrong shape or a used one is not finite."""
        batch_size = len(is_empty)
        if chunk.ndim != 3 or len(chunk) != batch_size:
            raise UserError(
                f"sample_actions returned actions of shape {list(chunk.shape)} for {batch_size} "
                f"environments: it must return [{batch_size}, Tp, Da].",
                argument="sample_actions",
            )
        # By (1), the last executed action is number To - 2 + Ta.
        needed = self.observed - 1 + self.executed
        if needed > chunk.shape[1]:
            raise UserError(
                f"executed={self.executed} does not fit: observed - 1 + executed = {needed} "
                f"steps are needed, but Tp = {chunk.shape[1]} are predicted. Lower executed.",
                argument="executed",
            )
        # NaN or infinity must not reach a robot. Chunks that are not used may contain them.
        broken = np.flatnonzero(is_empty & ~is_finite(chunk))
        if broken.size:
            raise UserError(
                f"the sampled actions of environments {broken.tolist()} are not finite: none is "
                "executed."
            )


def advance(chunk: np.ndarray, steps: int) -> np.ndarray:
    """Shifts chunks [B, Tp, Da] by `steps` into the past; the last steps become NaN."""
    unknown = np.full_like(chunk[:, :steps], np.nan)
    return np.concatenate([chunk[:, steps:], unknown], axis=1)


def from_now(chunk: np.ndarray, observed: int) -> np.ndarray:
    """The actions [B, Tp - To + 1, Da] of chunks [B, Tp, Da] from the present on, by (1)."""
    return chunk[:, observed - 1 :]


def is_finite(chunk: np.ndarray) -> np.ndarray:
    """For each of the chunks [B, Tp, Da], whether all its numbers are finite: bool [B]."""
    return np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1)


# Compiled, so that one call replaces several small ones. `impl` is a name, hence static.
@functools.partial(jax.jit, static_argnames="impl")
def _fold(key_data: jax.Array, counts: jax.Array, *, impl: str) -> PRNGKey:
    """Keys [B] of the next chunks: the key of each environment, folded with its chunk count."""
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(key_data, impl=impl), counts)
