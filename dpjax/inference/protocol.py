"""A policy as everything that executes it knows it: a function that samples action chunks."""

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

PRNGKey = jax.Array


class SampleActions(Protocol):
    """A policy with its params, as a function from observations to action chunks."""

    def __call__(
        self,
        rng: PRNGKey,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
        /,
    ) -> np.ndarray | jax.Array:
        """Returns action chunks [B, Tp, Da] in data units.

        rng: keys [B], one per example; a policy may also take a single key.
        obs: {name: [B, To, ...]} in data units.
        previous: [B, Tp, Da] the last chunks, shifted to the present and NaN in the steps that
            they do not reach; None before the first chunk.
        committed: int32 [B], how many actions from the present on are executed whatever the new
            chunk says: the first ones of `previous`, from step To - 1 on. Only passed by a
            controller with a delay; None is 0.
        """
        ...
