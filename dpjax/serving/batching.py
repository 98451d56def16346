"""Requests of several clients as one batch: joined, padded, sampled.

Each example has its own key, so an answer does not depend on the others of its batch: it is
bit-equal within one batch size, and equal up to rounding across batch sizes.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.chunks import is_finite
from dpjax.inference.compiled import bucket


class Version(NamedTuple):
    """A policy as it is served; another checkpoint is another version.

    sample_actions: (keys [B], obs[, previous[, committed]]) -> [B, Tp, Da].
    warm_up: compiles for the given batch sizes.
    about: {"checkpoint": step, …}, for the metadata and the replies.
    ranges: {name: (low [D], high [D])} of observations that are near the training data.
    far: () -> {name: how many observations were outside of their range}.
    """

    sample_actions: Callable[..., Any]
    warm_up: Callable[[Iterable[int]], Any]
    about: dict[str, Any]
    ranges: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
    far: Callable[[], Mapping[str, int]] = dict


@dataclass(eq=False)
class Request:
    """Examples of one client, of one version of the policy.

    seconds: how long its batch took to sample; 0 before.
    """

    version: Version
    key_data: np.ndarray  # uint32 [n, words]
    obs: Mapping[str, np.ndarray]  # {name: [n, To, ...]}
    previous: np.ndarray | None = None  # [n, Tp, Da]
    committed: np.ndarray | None = None  # int32 [n]
    deadline: float = float("inf")  # seconds of time.monotonic
    future: Future = field(default_factory=Future)
    seconds: float = 0.0


def call(batch: list[Request]) -> np.ndarray:
    """The action chunks [n, Tp, Da] of all examples of the requests, in their order."""
    version = batch[0].version  # the worker puts requests of one version into a batch
    sizes = [len(request.key_data) for request in batch]
    # A request alone is passed on as it is. `CompiledPolicy` pads others to the sizes it has.
    join = lambda arrays: np.concatenate(arrays) if len(batch) > 1 else arrays[0]
    key_data = join([request.key_data for request in batch])
    obs = {name: join([request.obs[name] for request in batch]) for name in batch[0].obs}
    # A policy may have no use for these two, so they are passed only if somebody sent them.
    # NaN stands for "no previous chunk", 0 for "no step is committed".
    optional = []
    if any(request.committed is not None for request in batch):
        given = [request.committed for request in batch]
        optional = [join([np.zeros(n, np.int32) if c is None else c for c, n in zip(given, sizes)])]
    if optional or any(request.previous is not None for request in batch):
        optional = [_previous(batch, sizes, join), *optional]
    # jax's default generator, which `requests.read_batch` and the sessions use too.
    keys = jax.random.wrap_key_data(key_data)
    return np.asarray(version.sample_actions(keys, obs, *optional))


def _previous(batch: list[Request], sizes: list[int], join: Callable) -> np.ndarray | None:
    """The previous chunks [n, Tp, Da] of the batch; None if no request has one."""
    shapes = [request.previous.shape[1:] for request in batch if request.previous is not None]
    if not shapes:
        return None
    # An episode's first request has no previous chunk: that is one without known steps.
    unknown = [np.full((n, *shapes[0]), np.nan, np.float32) for n in sizes]
    return join([u if r.previous is None else r.previous for r, u in zip(batch, unknown)])


def trial(version: Version, obs_shapes: Mapping[str, Any], size: int) -> Request:
    """A request of `size` equal examples, to warm up and to try a version."""
    obs = {name: np.zeros((size, *x.shape), x.dtype) for name, x in obs_shapes.items()}
    # In the middle of the training data where that is known; zeros would be counted as far.
    for name, (low, high) in version.ranges.items():
        obs[name] += np.where(np.isfinite(low + high), (low + high) / 2, 0).astype(obs[name].dtype)
    return Request(version, np.zeros((size, 2), np.uint32), obs)


def warm_up(version: Version, obs_shapes: Mapping[str, Any], max_batch: int) -> None:
    """Compiles a version for all batch sizes, and tries each once.

    Raises UserError if a chunk is not finite.
    """
    # All sizes that batches are padded to: 1, 2, 4, …
    version.warm_up([1 << i for i in range(bucket(max_batch).bit_length())])
    # Small programs, such as that which makes keys of numbers, are compiled by calls alone, and
    # for every number of examples.
    for size in range(1, max_batch + 1):
        if not is_finite(call([trial(version, obs_shapes, size)])).all():
            raise UserError("its action chunks are not finite.")
