"""A policy is three pure functions, and whatever training changes is in `params`."""

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


class Sample(Protocol):
    """`Policy.sample`: action chunks for a batch of observations."""

    def __call__(
        self, params: Params, rng: PRNGKey, obs: Observation, previous: Array | None = None, /
    ) -> Array:
        """Returns actions [B, Tp, Da] in data units.

        params: as `Policy.init` makes them.
        rng: one key, or keys [B], one per example.
        obs: {name: [B, To, ...]} in data units.
        previous: for a warm start, the last action chunks moved to the present, [B, Tp, Da],
            and NaN in the steps that they do not reach; None for none.
        """
        ...


class Policy(NamedTuple):
    """A policy. Training needs `init` and `loss`, deployment needs `sample`.

    init: `(rng, batch) -> params` with the items "encoder", "denoiser" and "normalizer".
    loss: `(params, rng, batch) -> (total [], sums)`, the sum of the examples' losses, and
        metrics that are sums too, among them "weight", the number to divide by. Sums, so that
        the devices' values can be added before anything is divided.
    sample: see `Sample`.
    """

    init: Callable[[PRNGKey, Batch], Params]
    loss: Callable[[Params, PRNGKey, Batch], tuple[Array, Metrics]]
    sample: Sample


class Encode(Protocol):
    """`Encoder.apply`: features of a batch of observations."""

    def __call__(self, params: Any, obs: Observation, keys: PRNGKey | None = None, /) -> Array:
        """Returns features [B, T, F].

        params: as `Encoder.init` makes them.
        obs: {name: [B, T, ...]} in network units.
        keys: [B] while training, one per example; None where nothing is random.
        """
        ...


class View(Protocol):
    """`Encoder.view`: crops and other augmentation of images."""

    def __call__(self, obs: Observation, keys: PRNGKey | None = None, /) -> Observation:
        """Returns the observations {name: [B, T, ...]} that the encoder sees, in data units.

        keys: [B] while training, one per example; None where nothing is random.
        """
        ...


def identity_view(obs: Observation, keys: PRNGKey | None = None) -> Observation:
    """The view of an encoder without cameras: the observations unchanged."""
    del keys
    return obs


class Encoder(NamedTuple):
    """The part of a policy that turns observations into features [B, T, F].

    init: `(rng, obs) -> params`, obs in network units.
    apply: see `Encode`.
    view: see `View`; it comes before the normalizer, so its units are those of the data.
    """

    init: Callable[[PRNGKey, Observation], Any]
    apply: Encode
    view: View = identity_view


class Prepare(Protocol):
    """`Denoiser.prepare`: what does not depend on x, computed once for all levels."""

    def __call__(
        self, params: Any, cond: Array, t: Array, keys: PRNGKey | None = None, /
    ) -> Context:
        """Returns the Context of the levels t.

        params: as `Denoiser.init` makes them.
        cond: [B, T, F] the features that it is conditioned on.
        t: the times of S levels while sampling, [S], or of each example in training, [B]; with
            a last axis of 2 for a network that is given two times (`meanflow`).
        keys: [B] while training, one per example, for dropout; None turns dropout off.
        """
        ...


class Denoise(Protocol):
    """`Denoiser.apply`: the network's prediction."""

    def __call__(
        self, params: Any, x: Array, context: Context, keys: PRNGKey | None = None, /
    ) -> Array:
        """Returns the prediction y [B, Tp, D] of x [B, Tp, D].

        params: as `Denoiser.init` makes them.
        context: of `Prepare`, with `per_level` of one level, or of each example's level [B].
        keys: as in `Prepare`.
        """
        ...


class Denoiser(NamedTuple):
    """The part of a policy that predicts, in two functions.

    The sampling loop calls `apply` once per evaluation, and `prepare` is called once before it.

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
    """The Encoder of a flax module `(obs, keys) -> [B, T, F]`.

    dtype: what it computes in; its input, params and output are float32.
    """

    def init(rng: PRNGKey, obs: Observation) -> Any:
        # A module without parameters has no "params" at all.
        return module.init(rng, obs).get("params", {})

    def apply(params: Any, obs: Observation, keys: PRNGKey | None = None) -> Array:
        # Without weights it only arranges numbers, which must not lose digits.
        compute = dtype if jax.tree.leaves(params) else jnp.float32
        features: Any = module.apply({"params": cast(params, compute)}, cast(obs, compute), keys)
        return features.astype(jnp.float32)

    return Encoder(init, apply, view)


def denoiser_of(module: nn.Module, dtype: DTypeLike = jnp.float32) -> Denoiser:
    """The Denoiser of a flax module with the methods `prepare` and `denoise`.

    dtype: what it computes in; x, params and the prediction are float32, and times are never
        cast.
    """

    def call(method: Callable, params: Any, x: Array, *others: Any) -> Any:
        # Params and x in the compute dtype; `others` holds times and keys, which keep theirs.
        variables = {"params": cast(params, dtype)}
        return module.apply(variables, cast(x, dtype), *others, method=method)

    def init(rng: PRNGKey, x: Array, t: Array, cond: Array) -> Any:
        return module.init(rng, x, t, cond)["params"]

    def prepare(params: Any, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        return call(module.prepare, params, cond, t, keys)

    def apply(params: Any, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        return call(module.denoise, params, x, context, keys).astype(jnp.float32)

    return Denoiser(init, prepare, apply)
