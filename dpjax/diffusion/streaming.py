"""Warm start: a plan begins with the last one, and only the end of the path is walked.

Between two looks the best plan changes little, so the last one, moved to the present and
made noisy again, stands in for the first steps of the path (Janner et al. 2022, sec. 5.4):

    x = α_k x_0 + σ_k ε,    then the steps k … S - 1 as ever.               (7)
"""

import jax
import jax.numpy as jnp

from dpjax.diffusion import targets

Array = jax.Array


def begin_with(walk, last: Array, skipped: int):
    """`walk` (`samplers.sample`) for rows that have a last plan and rows that have none.

    last: [B, Tp, D] x_0 in network units, moved to the present; NaN from the step on of
        which nothing is known, and in all steps of a row without a plan.
    skipped: k of (7), at least 1. A row without a plan walks all steps; where every row
        has one, the first k are not computed. Of second order, the walk begins anew at k.
    """

    def warm(predict, x, path, keys, *, each_step=None, **options):
        head = jax.tree.map(lambda leaf: leaf[:skipped], (path, each_step))
        tail = jax.tree.map(lambda leaf: leaf[skipped:], (path, each_step))
        x0, known = extended(last)

        def from_noise(x):
            return walk(predict, x, head[0], keys, each_step=head[1], **options)

        begun = targets.add_noise(x0, x, tail[0].now[0])
        cold = jax.lax.cond(known.all(), lambda x: x, from_noise, x)
        x = jnp.where(targets.expand(known, x), begun, cold)
        return walk(predict, x, tail[0], keys, each_step=tail[1], first=skipped, **options)

    return warm


def extended(last: Array) -> tuple[Array, Array]:
    """[B, Tp, D] whose NaN steps repeat the last known one, and the rows [B] that know any."""
    steps = jnp.isfinite(last).all(-1).sum(-1)  # [B]
    index = jnp.clip(jnp.arange(last.shape[1]), 0, jnp.maximum(steps - 1, 0)[:, None])
    known = steps > 0
    repeated = jnp.take_along_axis(last, index[..., None], axis=1)
    return jnp.where(targets.expand(known, last), repeated, 0.0), known
