"""From action chunks to actions: the history of observations and the queue of actions.

An action chunk holds Tp actions. Action 0 belongs to the time of the oldest of the To observed
steps, so action To - 1 belongs to the present. A chunk that is sampled in step k takes over d steps
later, in step k + d, at its own step for that time; until then the robot executes the chunk before
it. Then Ta actions are executed (receding horizon, Chi et al. 2023, fig. 2):

    predicted   0 … To-2 | To-1 … To-2+d | To-1+d … To-2+d+Ta | To-1+d+Ta … Tp-1
                  past   |   committed   |      executed      |   thrown away      (1)

With d = 0 the robot waits for each chunk, as in a simulator that stands still meanwhile.

All indices of (1) are computed in this file and in no other.
"""

from collections.abc import Mapping
import functools

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference import chunks
from dpjax.inference.protocol import SampleActions as SampleActions

PRNGKey = jax.Array


class Controller:
    """Executes the action chunks of a policy in B environments, or in a single one.

    Every environment has its own key, history and queue, and does not depend on the others. The
    policy always samples for all B environments, so that a single program is enough. Those that
    need no new chunk ignore theirs.

    The policy gets the last chunks as `previous`, shifted to the present: step j of `previous`
    belongs to the same time as step j of the new chunk, and steps of the past hold what was
    executed. The last steps, which the last chunk does not reach, are NaN. All steps are NaN for
    an environment that has been reset since its last chunk. `previous` is None before the first
    chunk.

    chunk: [B, Tp, Da] the last action chunk of every environment; None before the first one.
    """

    def __init__(
        self, sample_actions: SampleActions, *, observed: int, executed: int, delay: int = 0
    ):
        """observed: To. executed: Ta, the number of actions executed of each chunk.

        delay: d, the steps between an observation and the first action of its chunk. The first
            chunk of an episode is waited for.

        Raises UserError if a delay is longer than the actions of a chunk last.
        """
        if not 0 <= delay <= executed:
            raise UserError(
                f"delay={delay} must be from 0 to executed={executed}: a chunk must be there when "
                "the one before it ends. Sample in fewer steps, or execute more actions.",
                argument="delay",
            )
        self.sample_actions = sample_actions
        self.observed = observed
        self.executed = executed
        self.delay = delay
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
        self._has_next[indices] = False
        # No warm start from the last chunk of the previous episode.
        if self.chunk is not None and self._executed is not None:
            self.chunk[indices] = np.nan
            self._executed[indices] = np.nan

    def _reset_all(self, key_data: np.ndarray, *, single: bool, impl: str) -> None:
        """Forgets everything and starts one episode per key."""
        self._single = single
        self._key_impl = impl
        # A copy, [B, words], because `reset` with indices writes into it.
        self._key_data = np.array(key_data[None] if single else key_data)
        batch_size = len(self._key_data)
        self._num_chunks = np.zeros(batch_size, np.int32)  # chunks sampled in each episode
        self._num_left = np.zeros(batch_size, np.int32)  # actions left in each queue
        self._position = np.zeros(batch_size, np.int32)  # of the next action in its chunk
        self._has_next = np.zeros(batch_size, bool)  # a chunk waits for its step
        self._is_fresh = np.ones(batch_size, bool)  # True before the first observation
        self._history: dict[str, np.ndarray] = {}  # {name: [B, To, ...]}
        self.chunk = None
        self._next: np.ndarray | None = None  # [B, Tp, Da] the chunks that wait
        self._executed: np.ndarray | None = None  # [B, To - 1, Da] the last actions

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
        # 2. Chunks that waited for their step take over, and new ones are sampled. This is done
        # twice where a first chunk, which is not delayed, lasts as long as the delay.
        self._take_over()
        while (needs := self._needs_chunk()).any():
            self._sample(needs)
        assert self.chunk is not None  # after a reset all environments need chunks
        # 3. Take the next action of every queue; each queue has its own position.
        actions = self.chunk[np.arange(len(self.chunk)), self._position]
        self._remember(actions)
        self._position += 1
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

    def _needs_chunk(self) -> np.ndarray:
        """bool [B]: d actions are left and no chunk waits; or none is left, in a new episode."""
        return ~self._has_next & ((self._num_left == self.delay) | (self._num_left == 0))

    def _take_over(self) -> None:
        """Where no action is left, the waiting chunk is executed from its own step on."""
        ends = self._has_next & (self._num_left == 0)
        if not ends.any():
            return
        assert self.chunk is not None and self._next is not None
        self.chunk[ends] = self._next[ends]
        # By (1): the chunk was sampled d steps ago.
        self._start(ends, self.observed - 1 + self.delay)
        self._has_next[ends] = False

    def _start(self, environments: np.ndarray, position: int) -> None:
        """Begins to execute the chunks of some environments, bool [B], at a position."""
        self._position[environments] = position
        self._num_left[environments] = self.executed

    def _sample(self, needs: np.ndarray) -> None:
        """Samples chunks for all environments; those in `needs`, bool [B], use theirs."""
        # 1. Sample. The noise of a chunk depends on the key of the episode and on the number of
        # chunks before it, but not on the other environments.
        keys = _fold(self._key_data, self._num_chunks, impl=self._key_impl)
        previous = self._previous()
        # A first chunk is waited for: nothing is committed before it.
        is_first = self._num_left == 0
        committed = np.where(is_first, 0, self.delay).astype(np.int32)
        more = (committed,) if self.delay else ()
        chunk = np.array(self.sample_actions(keys, dict(self._history), previous, *more))
        chunks.check(chunk, needs, observed=self.observed, executed=self.executed, delay=self.delay)
        # 2. First chunks are executed at once, the others in d steps.
        if self.chunk is None:
            self.chunk = np.full_like(chunk, np.nan)
            self._next = np.full_like(chunk, np.nan)
            self._executed = np.full_like(chunk[:, : self.observed - 1], np.nan)
        assert self._next is not None
        now = needs & is_first
        later = needs & ~is_first
        self.chunk[now] = chunk[now]
        self._start(now, self.observed - 1)
        self._next[later] = chunk[later]
        self._has_next |= later
        self._num_chunks[needs] += 1

    def _previous(self) -> np.ndarray | None:
        """The last chunks shifted to the present, [B, Tp, Da]; None before the first one."""
        if self.chunk is None:
            return None
        # Environments without actions are at the end of their chunk, the others at `_position`.
        shifts = np.maximum(self._position - (self.observed - 1), 0)  # 0: before the first action
        shifted = np.stack([chunks.advance(*pair) for pair in zip(self.chunk, shifts, strict=True)])
        # A chunk that has just taken over did not decide what was executed before.
        shifted[:, : self.observed - 1] = self._executed
        return shifted

    def _remember(self, actions: np.ndarray) -> None:
        """Keeps the last To - 1 executed actions, [B, Da] more of them."""
        assert self._executed is not None
        if self.observed > 1:
            self._executed = np.concatenate([self._executed[:, 1:], actions[:, None]], axis=1)


# Compiled, so that one call replaces several small ones. `impl` is a name, hence static.
@functools.partial(jax.jit, static_argnames="impl")
def _fold(key_data: jax.Array, counts: jax.Array, *, impl: str) -> PRNGKey:
    """Keys [B] of the next chunks: the key of each environment, folded with its chunk count."""
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(key_data, impl=impl), counts)
