"""A policy as one program a batch size, compiled ahead of time and never again after.

uint8 images and numbers go in, action chunks come out: normalization, encoder, sampling
loop and units are one jitted function. A batch is padded to the next size that there is a
program for and cut back; a row's noise is its own key's, so its neighbours do not matter.
No network is imported here: what `dpjax.export` wrote acts through this too.
"""

from collections.abc import Callable, Iterable, Mapping
import time
from typing import Any

import jax
import numpy as np

from dpjax.core.errors import UserError

# types.example_keys, compiled; not imported, since that file needs flax and this one does not.
fold = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def bucket(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()


def pad(x: np.ndarray, size: int) -> np.ndarray:
    """[n, ...] -> [size, ...], the last row repeated."""
    if len(x) == size:
        return x
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


class CompiledPolicy:
    """`act(params, rng, obs, previous=None) -> [B, Tp, Da]`; numpy in and out.

    A batch of B rows runs in the smallest program compiled of B to bucket(B) rows; where
    there is none, one of bucket(B) rows is compiled.
    """

    def __init__(
        self,
        sample: Callable,
        wants: Mapping[str, jax.ShapeDtypeStruct],
        previous: tuple[int, int] | None = None,
        batch: int | None = None,
    ):
        """sample: `(params, keys [B], obs[, previous]) -> actions [B, Tp, Da]`.

        wants: of every observation the shape and dtype of a row, (To, ...). previous:
        (Tp, Da) of the plan that `sample` starts from; None for one that takes none.
        batch: the only size that there can be a program for; None for any.
        """
        self._wants, self._previous, self._batch = dict(wants), previous, batch
        self._programs = {}  # {(batch size, dtype of the keys): program}

        def run(params, keys, obs, previous):
            return sample(params, keys, obs, *(() if previous is None else (previous,)))

        # XLA writes an output over a donated input of the same shape, which only `previous`
        # has; of the others it would say that they can't be used. A CPU that got it as a
        # numpy array without a copy leaves that alone, and gains nothing.
        self._jit = jax.jit(run, donate_argnames="previous")

    def compile(self, params: Any, batch_sizes: Iterable[int]) -> float:
        """Programs of just these sizes, if they are missing; returns the seconds it took."""
        start = time.perf_counter()
        for size in batch_sizes:
            self._size(size)
            key = jax.random.key(0)
            self._program(params, self._batch or size, key.dtype)
            fold(key, np.arange(self._batch or size)).block_until_ready()
        return time.perf_counter() - start

    def __call__(self, params, rng, obs, previous=None) -> np.ndarray:
        obs, rows = self._check(obs)
        size = self._size(rows)
        keys = self._keys(rng, rows, size)
        if self._previous is None:
            previous = None
        elif previous is None:  # as an array: the first plan and the later are one program
            previous = np.full((size, *self._previous), np.nan, np.float32)
        else:
            previous = pad(np.asarray(previous, np.float32), size)
        program = self._program(params, size, keys.dtype)
        obs = {name: pad(x, size) for name, x in obs.items()}
        return np.asarray(program(params, keys, obs, previous))[:rows]

    def _size(self, rows):
        """The size of the program that `rows` rows run in."""
        if rows < 1 or (self._batch and rows > self._batch):
            most = f" to {self._batch}" if self._batch else " or more"
            raise UserError(f"a batch of {rows} rows: this policy acts for 1{most} at once.")
        if self._batch:
            return self._batch
        sizes = (size for size, _ in self._programs)
        return min((s for s in sizes if rows <= s <= bucket(rows)), default=bucket(rows))

    def _program(self, params, size, kind):
        """The program of that size and dtype of keys, compiled if there is none."""
        if (size, kind) not in self._programs:
            shape = lambda row: jax.ShapeDtypeStruct((size, *row.shape), row.dtype)
            obs = {name: shape(row) for name, row in self._wants.items()}
            previous = self._previous and jax.ShapeDtypeStruct((size, *self._previous), np.float32)
            keys = jax.ShapeDtypeStruct((size,), kind)
            self._programs[size, kind] = self._jit.lower(params, keys, obs, previous).compile()
        return self._programs[size, kind]

    def _keys(self, rng, rows, size):
        """Keys [size], one a row, of keys [rows] or of one key.

        Keys of the right number go into the program as they are: a plan leaves the caches
        full of weights, after which each small call of jax costs 0.2 ms.
        """
        if not jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key):
            raise UserError(f"a plan wants keys made by jax.random.key, not {rng.dtype} numbers.")
        if rng.ndim == 0:
            return fold(rng, np.arange(size))
        if len(rng) != rows:
            raise UserError(f"{len(rng)} keys for {rows} rows of observations: give one a row.")
        if rows == size:
            return rng
        words = pad(np.asarray(jax.random.key_data(rng)), size)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(rng))

    def _check(self, obs):
        """Observations as they were learned from, and how many rows; or what is wrong."""
        checked = {}
        for name, row in self._wants.items():
            if name not in obs:
                raise UserError(f"observation: {name!r} is missing; got {', '.join(sorted(obs))}.")
            x = np.asarray(obs[name])
            image = row.dtype == np.uint8
            if x.shape[1:] != row.shape or (image and x.dtype != np.uint8):
                what = "uint8 images" if image else "numbers"
                raise UserError(
                    f"observation {name!r}: expected {what} [B, To, "
                    f"{', '.join(map(str, row.shape[1:]))}], got {x.dtype} {list(x.shape)} "
                    f"(To = {row.shape[0]})."
                )
            checked[name] = np.asarray(x, row.dtype)
        rows = {name: len(x) for name, x in checked.items()}
        if len(set(rows.values())) != 1:
            raise UserError(f"observations of different numbers of rows: {rows}.")
        return checked, next(iter(rows.values()))
