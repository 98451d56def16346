"""The hub: a policy is three pure functions, and whatever changes is in `params`."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

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


class Policy(NamedTuple):
    """A policy is three pure functions.

    init: `(rng, batch) -> params` with items "encoder", "denoiser", "normalizer".
    loss: `(params, rng, batch) -> (total [], sums)`: the sum of the rows' losses, and
        metrics that are sums too, among them "weight", what to divide by; sums, so
        that devices can be added before anything is divided.
    sample: `(params, rng, obs, previous=None) -> actions [B, Tp, Da]` in data units; rng
        is one key, or keys [B], one a row; previous, for a warm start, is what the last
        plan says about the steps of this one, [B, Tp, Da], NaN where it says nothing.
    """

    init: Callable[[PRNGKey, Batch], Params]
    loss: Callable[[Params, PRNGKey, Batch], tuple[Array, Metrics]]
    sample: Callable[..., Array]


def as_they_are(obs: Observation, keys: PRNGKey | None = None) -> Observation:
    """The view of an encoder without cameras."""
    del keys
    return obs


class Encoder(NamedTuple):
    """From observations to features, in network units but for `view`.

    init: `(rng, obs) -> params`. apply: `(params, obs, keys) -> features [B, To, F]`.
    view: `(obs, keys) -> obs`, both in data units: crops and other augmentation of images.
    keys: one a row [B] in training, for what is random; None where nothing is.
    """

    init: Callable[[PRNGKey, Observation], Any]
    apply: Callable[..., Array]
    view: Callable[..., Observation] = as_they_are


class Denoiser(NamedTuple):
    """A network in two parts, so that what does not depend on x is computed once.

    init: `(rng, x, t, cond) -> params`.
    prepare: `(params, cond [B, To, F], t [S] or [B], keys) -> Context`; a network that is
        told two times (`meanflow`) gets t [S, 2] or [B, 2].
    apply: `(params, x [B, Tp, Da], context of one level, keys) -> y [B, Tp, Da]`.
    keys: one a row [B] in training, for dropout; None, the default, where it is off.
    """

    init: Callable[..., Any]
    prepare: Callable[[Any, Array, Array], Context]
    apply: Callable[[Any, Array, Context], Array]


def encoder_of(module, view=as_they_are, dtype=jnp.float32) -> Encoder:
    """An Encoder of a flax module `(obs, keys) -> [B, To, F]`.

    dtype: what it computes in, float32 in and out. Without weights it computes nothing,
        and its numbers stay what they are.
    """

    def apply(params, obs, keys=None):
        used = dtype if jax.tree.leaves(params) else jnp.float32
        made = module.apply({"params": cast(params, used)}, cast(obs, used), keys)
        return made.astype(jnp.float32)

    return Encoder(lambda rng, obs: module.init(rng, obs).get("params", {}), apply, view)


def denoiser_of(module, dtype=jnp.float32) -> Denoiser:
    """A Denoiser of a flax module with methods `prepare` and `denoise`.

    dtype: what it computes in; x, params and y are float32, times are never cast.
    """

    def run(method, params, x, *others):
        return module.apply({"params": cast(params, dtype)}, cast(x, dtype), *others, method=method)

    def apply(params, x, context, keys=None):
        return run(module.denoise, params, x, context, keys).astype(jnp.float32)

    return Denoiser(
        init=lambda rng, x, t, cond: module.init(rng, x, t, cond)["params"],
        prepare=lambda params, cond, t, keys=None: run(module.prepare, params, cond, t, keys),
        apply=apply,
    )
