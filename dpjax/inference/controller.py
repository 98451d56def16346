"""From plans to actions: the observations kept, the queue, the slice.

A plan predicts Tp actions; the first belongs to the oldest of the To observations, so the
action for the present is number To-1. Of these, Ta are executed before the next plan
(receding horizon, Chi et al. 2023, fig. 2):

    predicted   0 … To-2 | To-1 … To-2+Ta | To-1+Ta … Tp-1
                  past   |    executed    |    thrown away            (1)

Equation (1) is written here and nowhere else in dpjax.
"""

from collections.abc import Callable, Mapping
import functools

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.core.types import PRNGKey

# plan(keys [B], obs {name: [B, To, ...]}, previous [B, Tp, Da] | None) -> [B, Tp, Da]
SampleActions = Callable[..., jax.Array]


class Controller:
    """Turns a plan into actions for B environments, or for a single one.

    Every row has its own key, history and queue, so that what happens in a row does not
    depend on who shares the batch. A plan always sees all B rows (one shape, one
    compilation); rows whose queue still holds actions ignore theirs.

    A plan gets `previous`: the last chunk of every row moved to the present, so that its
    step j is the new plan's, and NaN in the Ta steps that it did not reach. It is None
    before the first plan, and NaN in the rows that have been reset since theirs. (Rows
    that are not due are moved too; their plans are ignored.)
    """

    def __init__(self, plan: SampleActions, *, observed: int, executed: int):
        """observed: To. executed: Ta."""
        self.plan, self.observed, self.executed = plan, observed, executed
        self.chunk = None  # [B, Tp, Da] the last plan of every row
        self._key_data = None

    def reset(self, keys: PRNGKey, rows=None) -> None:
        """Starts episodes: keys [B], or [n] for the n given `rows`, or one key [].

        One key makes this the controller of a single environment: `act` then takes
        {name: [D]} and returns [Da].
        """
        if not jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"Controller.reset wants keys made by jax.random.key, not {keys.dtype} numbers."
            )
        data = np.asarray(jax.random.key_data(keys))
        if rows is None:
            self._single, self._key_impl = keys.ndim == 0, jax.random.key_impl(keys)
            self._key_data = np.array(data[None] if self._single else data)
            self._plans = np.zeros(len(self._key_data), np.int32)
            self._left = np.zeros(len(self._key_data), np.int32)
            self._fresh = np.ones(len(self._key_data), bool)
            self._history, self.chunk = {}, None
            return
        rows = np.asarray(rows, int)
        self._key_data[rows], self._fresh[rows] = data, True
        self._plans[rows] = self._left[rows] = 0
        if self.chunk is not None:
            self.chunk[rows] = np.nan

    def act(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The next action [B, Da] of every row, from its newest {name: [B, ...]}."""
        if self._key_data is None:
            raise UserError("Controller.act was called before reset(keys).")
        for name, x in obs.items():
            self._remember(name, np.asarray(x)[None] if self._single else np.asarray(x))
        self._fresh = np.zeros_like(self._fresh)
        if (self._left == 0).any():
            self._refill()
        queue = self.chunk[:, self.observed - 1 : self.observed - 1 + self.executed]  # (1)
        actions = queue[np.arange(len(queue)), self.executed - self._left]
        self._left -= 1
        return actions[0] if self._single else actions

    def _remember(self, name, x):
        """Shifts the history [B, To, ...]; a fresh row repeats its first observation."""
        if len(x) != len(self._fresh):
            raise UserError(
                f"observation {name!r} has {len(x)} rows, the controller was reset with "
                f"{len(self._fresh)} keys; give one key a row."
            )
        repeated = np.repeat(x[:, None], self.observed, axis=1)
        before = self._history.get(name, repeated)
        shifted = np.concatenate([before[:, 1:], x[:, None]], axis=1)
        fresh = self._fresh.reshape((-1,) + (1,) * x.ndim)
        # A new array each time: jax may still be reading the last one.
        self._history[name] = np.where(fresh, repeated, shifted)

    def _refill(self):
        """One plan for all rows; those with an empty queue take theirs."""
        empty = self._left == 0
        keys = _fold(self._key_data, self._plans, impl=self._key_impl)
        previous = None if self.chunk is None else later(self.chunk, self.executed)
        chunk = np.array(self.plan(keys, dict(self._history), previous))
        if chunk.ndim != 3 or len(chunk) != len(empty):
            raise UserError(
                f"the plan returned actions of shape {list(chunk.shape)}; "
                f"[{len(empty)}, Tp, Da] is wanted for {len(empty)} rows of observations."
            )
        if self.observed - 1 + self.executed > chunk.shape[1]:
            raise UserError(
                f"horizon.act={self.executed} does not fit: horizon.obs - 1 + horizon.act = "
                f"{self.observed - 1 + self.executed} steps are needed but "
                f"horizon.predict={chunk.shape[1]} are predicted. Lower horizon.act."
            )
        bad = np.flatnonzero(empty & ~finite_rows(chunk))
        if bad.size:
            raise UserError(f"the plan is not finite in rows {bad.tolist()}: none is executed.")
        if self.chunk is None:
            self.chunk = np.full_like(chunk, np.nan)
        self.chunk[empty] = chunk[empty]
        self._left[empty], self._plans[empty] = self.executed, self._plans[empty] + 1


def later(chunk: np.ndarray, steps: int) -> np.ndarray:
    """A chunk [B, Tp, Da] seen `steps` later: its first steps are over, its last are NaN."""
    unknown = np.full_like(chunk[:, :steps], np.nan)
    return np.concatenate([chunk[:, steps:], unknown], axis=1)


def finite_rows(chunk: np.ndarray) -> np.ndarray:
    """Which rows [B] of a chunk [B, Tp, Da] hold finite numbers only."""
    return np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1)


@functools.partial(jax.jit, static_argnames="impl")
def _fold(words, counts, *, impl):
    """One key a row and plan: fold_in(the key [B] of these words, counts [B])."""
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(words, impl=impl), counts)
