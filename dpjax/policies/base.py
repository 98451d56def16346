"""The interfaces of a policy, its encoder and its denoiser.

Each of them is a named tuple of pure functions. All that training changes is in `params`, which
the functions take as an argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dpjax.core.types import (
    Array,
    Batch,
    Context,
    Metrics,
    Observation,
    Params,
    PRNGKey,
    cast,
)

# The functions are Protocols where their arguments need a description; a Callable has no place for
# one. The `/` at the end of a signature leaves the names of its arguments to the implementation.


class Sample(Protocol):
    """`Policy.sample`: action chunks for a batch of observations."""

    def __call__(
        self,
        params: Params,
        rng: PRNGKey,
        obs: Observation,
        previous: Array | None = None,
        committed: Array | None = None,
        /,
    ) -> Array:
        """Returns actions [B, Tp, Da] in data units.

        params: as returned by `Policy.init`.
        rng: a single key, or keys [B], one per example.
        obs: {name: [B, To, ...]} in data units.
        previous: for a warm start or an agreement, the last action chunks [B, Tp, Da], shifted to
            the present and NaN in the steps that they do not reach; None without.
        committed: int32 [B], how many actions of `previous` from the present on are executed
            whatever the new chunks say; None for 0. Read by an agreement only.
        """
        ...


class Policy(NamedTuple):
    """A policy. Training uses `init` and `loss`, deployment uses `sample`.

    init: `(rng, batch) -> params` with the items "encoder", "denoiser" and "normalizer".
    loss: `(params, rng, batch) -> (total [], sums)`: the sum of the examples' losses, and
        metrics that are sums too. One of them is "weight", the number to divide the total by.
        Devices add their sums first and divide afterwards, so that a mean over examples does
        not depend on the number of devices.
    sample: see `Sample`.
    """

    init: Callable[[PRNGKey, Batch], Params]
    loss: Callable[[Params, PRNGKey, Batch], tuple[Array, Metrics]]
    sample: Sample


# The encoder: observations -> features.


class Encode(Protocol):
    """`Encoder.apply`: features of a batch of observations."""

    def __call__(self, params: Any, obs: Observation, keys: PRNGKey | None = None, /) -> Array:
        """Returns features [B, T, F].

        params: as returned by `Encoder.init`.
        obs: {name: [B, T, ...]} in network units.
        keys: [B] while training, one per example; None where nothing is random.
        """
        ...


class View(Protocol):
    """`Encoder.view`: crops and other augmentations of images."""

    def __call__(self, obs: Observation, keys: PRNGKey | None = None, /) -> Observation:
        """Returns the observations {name: [B, T, ...]} that the encoder sees, in data units.

        keys: [B] while training, one per example; None where nothing is random.
        """
        ...


def identity_view(obs: Observation, keys: PRNGKey | None = None) -> Observation:
    """The view of an encoder without cameras: the observations unchanged."""
    del keys  # nothing is random here
    return obs


class Encoder(NamedTuple):
    """The part of a policy that turns observations into features [B, T, F].

    init: `(rng, obs) -> params`, obs in network units.
    apply: see `Encode`.
    view: see `View`. It is applied before the normalizer, in data units.
    """

    init: Callable[[PRNGKey, Observation], Any]
    apply: Encode
    view: View = identity_view


# The denoiser: x and features -> prediction. It is split in two functions because a large part of
# its work does not depend on x, and would otherwise be repeated in every evaluation.


class Prepare(Protocol):
    """`Denoiser.prepare`: the part of the network that does not depend on x, for all levels."""

    def __call__(
        self, params: Any, cond: Array, t: Array, keys: PRNGKey | None = None, /
    ) -> Context:
        """Returns the Context of the levels t.

        params: as returned by `Denoiser.init`.
        cond: [B, T, F] the features that the prediction is conditioned on.
        t: [S] the times of all levels while sampling, or [B] one time per example in training;
            [S, 2] or [B, 2] for a network with two times (`meanflow`).
        keys: [B] while training, one per example, for dropout; None turns dropout off.
        """
        ...


class Denoise(Protocol):
    """`Denoiser.apply`: the network's prediction."""

    def __call__(
        self, params: Any, x: Array, context: Context, keys: PRNGKey | None = None, /
    ) -> Array:
        """Returns the prediction y [B, Tp, D] of x [B, Tp, D].

        params: as returned by `Denoiser.init`.
        context: the result of `prepare`. While sampling, `per_level` is the slice of one level,
            without the axis S; in training it has one level per example, [B, …].
        keys: as in `Prepare`.
        """
        ...


class Denoiser(NamedTuple):
    """The network of a policy, split in two functions.

    While sampling, `prepare` is called once before the loop, and `apply` in every evaluation.

    init: `(rng, x, t, cond) -> params`.
    prepare: see `Prepare`.
    apply: see `Denoise`.
    """

    init: Callable[[PRNGKey, Array, Array, Array], Any]
    prepare: Prepare
    apply: Denoise


def encoder_of(
    module: nn.Module, view: View = identity_view, dtype: DTypeLike = jnp.float32
) -> Encoder:
    """Makes an Encoder of a flax module `(obs, keys) -> [B, T, F]`.

    dtype: the dtype of the computation. Observations, params and features are float32.
    """

    def init(rng: PRNGKey, obs: Observation) -> Any:
        # The variables of a module without parameters have no entry "params".
        return module.init(rng, obs).get("params", {})

    def apply(params: Any, obs: Observation, keys: PRNGKey | None = None) -> Array:
        # A module without weights only rearranges numbers. In bfloat16 they would lose digits.
        compute = dtype if jax.tree.leaves(params) else jnp.float32
        features: Any = module.apply({"params": cast(params, compute)}, cast(obs, compute), keys)
        return features.astype(jnp.float32)  # [B, T, F]

    return Encoder(init, apply, view)


def denoiser_of(module: nn.Module, dtype: DTypeLike = jnp.float32) -> Denoiser:
    """Makes a Denoiser of a flax module with the methods `prepare` and `denoise`.

    dtype: the dtype of the computation. Outside, x, params and predictions are float32. Times
        are never cast.
    """

    def call(method: Callable, params: Any, x: Array, *others: Any) -> Any:
        # Only params and the first argument (x, or the features) are cast. `others` are times,
        # contexts and keys: in bfloat16 the times of two levels could be the same number.
        variables = {"params": cast(params, dtype)}
        return module.apply(variables, cast(x, dtype), *others, method=method)

    def init(rng: PRNGKey, x: Array, t: Array, cond: Array) -> Any:
        # The module's __call__ runs both methods, which creates the params of both.
        return module.init(rng, x, t, cond)["params"]

    def prepare(params: Any, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        return call(module.prepare, params, cond, t, keys)

    def apply(params: Any, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        # The sampling loop and the loss are computed in float32.
        return call(module.denoise, params, x, context, keys).astype(jnp.float32)

    return Denoiser(init, prepare, apply)
