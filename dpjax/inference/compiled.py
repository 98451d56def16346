"""A policy as compiled programs, one per batch size, which are compiled once and kept.

A program maps uint8 images and numbers to action chunks: normalization, encoder, sampling loop and
conversion to data units. A batch is padded to the size of a program, and the padding is cut off
the result. Each example draws its noise from its own key, so the padding does not change it.
This file imports no network, because exported policies use it too.
"""

from collections.abc import Callable, Iterable, Mapping
import time
from typing import Any

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.trained_range import FarObservations, Range

PRNGKey = jax.Array

# The compiled form of `core.types.example_keys`. It is written again here because that file imports
# flax, which a robot with an exported policy does not need.
_fold = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def bucket(batch_size: int) -> int:
    """The smallest power of two that is at least the batch size."""
    # A few sizes serve all batches, and less than half of a batch is padding.
    return 1 << (batch_size - 1).bit_length()


def pad(x: np.ndarray, size: int) -> np.ndarray:
    """[n, ...] -> [size, ...], with the last element repeated."""
    if len(x) == size:
        return x  # without a copy
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


class CompiledPolicy:
    """`(params, rng, obs, previous=None, committed=None) -> actions [B, Tp, Da]`, numpy arrays.

    A batch of B examples uses the smallest compiled program whose size is between B and bucket(B).
    If there is none, a program of size bucket(B) is compiled.
    """

    def __init__(
        self,
        sample: Callable[..., jax.Array],
        obs_shapes: Mapping[str, jax.ShapeDtypeStruct],
        previous_shape: tuple[int, int] | None = None,
        batch_size: int | None = None,
        ranges: Mapping[str, Range] | None = None,
        takes_committed: bool = False,
    ):
        """sample: `(params, keys [B], obs) -> actions [B, Tp, Da]`, with `previous` as a fourth
            argument if `previous_shape` is given, and then `committed` if `takes_committed`.
        obs_shapes: shape (To, ...) and dtype of each observation of one example.
        previous_shape: (Tp, Da) of the last chunk, for a policy that takes it: for a warm start
            or for agreement with it. Otherwise None.
        batch_size: the only size that a program can have; smaller batches are padded to it.
            None for any size.
        ranges: {name: Range} of observations that are counted when they are far outside.
        takes_committed: whether the policy wants to know how many actions of the last chunk are
            executed in any case.
        """
        self.far = FarObservations(ranges or {})
        self._obs_shapes = dict(obs_shapes)
        self._previous_shape = previous_shape
        self._takes_committed = takes_committed and previous_shape is not None
        self._batch_size = batch_size
        self._programs: dict[tuple[int, Any], Any] = {}  # by batch size and dtype of the keys

        def run(
            params: Any,
            keys: PRNGKey,
            obs: dict,
            previous: jax.Array | None,
            committed: jax.Array | None,
        ) -> jax.Array:
            # `sample` takes as many arguments as the policy has use for.
            optional = [x for x in (previous, committed) if x is not None]
            return sample(params, keys, obs, *optional)

        # XLA writes an output into the memory of a donated input of the same shape. Only
        # `previous` has the shape of the actions; donating other inputs would give a warning. On
        # a CPU nothing is gained: numpy arrays that are used without a copy are not overwritten.
        self._jit = jax.jit(run, donate_argnames="previous")

    def compile(self, params: Any, batch_sizes: Iterable[int]) -> float:
        """Compiles the missing programs of these sizes. Returns the seconds that it took."""
        start = time.perf_counter()
        for batch_size in batch_sizes:
            self._program_size(batch_size)  # raises if the size is not possible
            size = self._batch_size or batch_size
            # For calls with keys [B], and for calls with a single key, which is folded first.
            key = jax.random.key(0)
            self._program(params, size, key.dtype)
            _fold(key, np.arange(size)).block_until_ready()
        return time.perf_counter() - start

    def __call__(
        self,
        params: Any,
        rng: PRNGKey,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da] in data units.

        rng: one key, or keys [B], one per example.
        obs: {name: [B, To, ...]} in data units; images are uint8.
        previous: [B, Tp, Da] the last chunks, shifted to the present; ignored by a policy that
            does not take them.
        committed: int32 [B], how many of their actions, from the present on, are executed in any
            case; None is 0. Ignored as well.

        Raises UserError if an observation is missing or has another shape, if the number of keys
        or of committed actions is wrong, or if the batch is too large.
        """
        # 1. Check the observations before anything is compiled for them.
        obs, batch_size = self._check(obs)
        self.far.count(obs, batch_size)
        size = self._program_size(batch_size)
        keys = self._keys(rng, batch_size, size)
        # 2. Pad the batch to the size of the program, run it, and cut the padding off.
        program = self._program(params, size, keys.dtype)
        padded = {name: pad(x, size) for name, x in obs.items()}
        optional = self._previous(previous, size), self._committed(committed, batch_size, size)
        actions = program(params, keys, padded, *optional)
        return np.asarray(actions)[:batch_size]

    def _previous(self, previous: np.ndarray | None, size: int) -> np.ndarray | None:
        """Previous chunks [size, Tp, Da]: NaN if there are none yet, None without warm start."""
        if self._previous_shape is None:
            return None
        if previous is None:
            # NaN rather than None: the first chunk then uses the same program as later ones.
            return np.full((size, *self._previous_shape), np.nan, np.float32)
        return pad(np.asarray(previous, np.float32), size)

    def _committed(
        self, committed: np.ndarray | None, batch_size: int, size: int
    ) -> np.ndarray | None:
        """Committed actions int32 [size]: 0 if there are none; None if the policy takes none."""
        if not self._takes_committed:
            return None
        if committed is None:
            return np.zeros(size, np.int32)
        steps = np.asarray(committed)
        if steps.shape != (batch_size,) or steps.dtype.kind not in "iu" or (steps < 0).any():
            raise UserError(
                f"committed must be {batch_size} whole numbers from 0 on, one per example, but is "
                f"{steps.dtype} {list(steps.shape)}.",
                argument="committed",
            )
        return pad(steps.astype(np.int32), size)

    def _program_size(self, batch_size: int) -> int:
        """The size of the program for a batch. Raises UserError if no program can take it."""
        largest = self._batch_size
        if batch_size < 1 or (largest and batch_size > largest):
            allowed = f"1 to {largest}" if largest else "1 or more"
            raise UserError(
                f"obs: a batch of {batch_size} examples, but this policy takes {allowed} at once.",
                argument="obs",
            )
        if largest:
            return largest  # such a policy has a single program
        # `compile` may have made a program that is smaller than the next power of two.
        upper = bucket(batch_size)
        sizes = (size for size, _ in self._programs)
        return min((size for size in sizes if batch_size <= size <= upper), default=upper)

    def _program(self, params: Any, size: int, key_dtype: Any) -> Any:
        """The program for a batch size and a dtype of keys; compiled if it does not exist yet."""
        if (size, key_dtype) not in self._programs:
            # Compiling needs shapes only, not data.
            obs = {
                name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype)
                for name, one in self._obs_shapes.items()
            }
            previous = None
            if self._previous_shape is not None:
                previous = jax.ShapeDtypeStruct((size, *self._previous_shape), np.float32)
            keys = jax.ShapeDtypeStruct((size,), key_dtype)
            committed = jax.ShapeDtypeStruct((size,), np.int32) if self._takes_committed else None
            lowered = self._jit.lower(params, keys, obs, previous, committed)
            self._programs[size, key_dtype] = lowered.compile()
        return self._programs[size, key_dtype]

    def _keys(self, rng: PRNGKey, batch_size: int, size: int) -> PRNGKey:
        """Keys [size], one per example, from one key or from keys [batch_size].

        If they have the right number, the keys are passed on unchanged. After a call the
        processor's caches are full of weights, and each small jax operation then costs 0.2 ms.
        """
        # 1. Only typed keys: the old uint32 [2] would be taken for two keys.
        if not jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"rng must be made by jax.random.key, but these are {rng.dtype} numbers.",
                argument="rng",
            )
        # 2. A single key: one key per example, padding included, is folded from it.
        if rng.ndim == 0:
            return _fold(rng, np.arange(size))
        # 3. One key per example.
        if len(rng) != batch_size:
            raise UserError(
                f"rng has {len(rng)} keys for {batch_size} examples: give one key per example.",
                argument="rng",
            )
        if batch_size == size:
            return rng
        # The padding needs keys too. It repeats the last one.
        key_data: Any = pad(np.asarray(jax.random.key_data(rng)), size)
        return jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(rng))

    def _check(self, obs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
        """Returns the observations in the dtypes of the program, and the batch size.

        Raises UserError if one is missing or has another shape.
        """
        checked = {}
        # 1. Each observation. Those that the policy does not know are ignored.
        for name, one in self._obs_shapes.items():
            if name not in obs:
                raise UserError(
                    f"obs: {name!r} is missing; got {', '.join(sorted(obs))}.", argument="obs"
                )
            x = np.asarray(obs[name])
            is_image = one.dtype == np.uint8
            if x.shape[1:] != one.shape or (is_image and x.dtype != np.uint8):
                expected = "uint8 images" if is_image else "numbers"
                sizes = ", ".join(map(str, one.shape[1:]))
                raise UserError(
                    f"obs: {name!r} must be {expected} [B, To, {sizes}] with To = "
                    f"{one.shape[0]}, but is {x.dtype} {list(x.shape)}.",
                    argument="obs",
                )
            # float64 and integers become float32. Images are uint8 already.
            checked[name] = np.asarray(x, one.dtype)
        # 2. All of them must have the same batch size.
        batch_sizes = {name: len(x) for name, x in checked.items()}
        if len(set(batch_sizes.values())) != 1:
            raise UserError(f"obs: different batch sizes {batch_sizes}.", argument="obs")
        return checked, next(iter(batch_sizes.values()))
