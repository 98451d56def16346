"""The sampling loop of a policy as numbers: its levels, its factors, its noise.

Between two evaluations of the network a sampler adds up x, its estimates and noise. All levels of
the path are known beforehand, and so are the factors of these sums. They are read off dpjax's own
functions, by their values at unit vectors.
"""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax.config import build, cameras
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.diffusion import parameterization, sampling
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.samplers import Evaluations, Sampler
from dpjax.diffusion.schedules import Level


class UnrolledSampler(NamedTuple):
    """What the sampling loop of a policy gets.

    noise_shape: (S + 1, Tp, D), without the batch. evaluations: all N of them.
    per_level: [S, …] or a tree of it, what the denoiser prepared for each step.
    clip: bound of |x̂_0| in every evaluation; last_clip: of x after the last one.
    prediction_type: a name in `parameterization.PREDICTION_TYPES`.
    """

    noise_shape: tuple[int, int, int]
    evaluations: Evaluations
    per_level: Any
    sampler: Sampler
    clip: float
    last_clip: float
    prediction_type: str


class Coefficients(NamedTuple):
    """The factors of one evaluation, each a float.

    x0, eps: the network's estimates as (factor of x, factor of y), equation (3).
    step: equation (4) as the factors of (x, x̂_0, ε̂, z).
    weight: that of the extrapolation.
    """

    x0: np.ndarray
    eps: np.ndarray
    step: np.ndarray
    weight: float


def plan_of(config: ConfigDict, spec: Spec, params: Params) -> UnrolledSampler:
    """The plan of the policy that the config describes."""
    caught: dict[str, Any] = {}

    # The policy hands its sampling loop all that a plan holds, whatever its method is.
    def catch(predict, x, path, keys, **options):
        caught.update(options, x=x, path=path)
        return x

    policy = build.policy(config, None, spec, sampling_loop=catch)
    shapes = cameras.observation_shapes(spec, config.horizon.obs)
    obs = {name: np.zeros((1, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}
    policy.sample(params, jax.random.key(0), obs)
    is_meanflow = config.method == "meanflow"
    steps = len(caught["path"].now.t)
    return UnrolledSampler(
        noise_shape=(steps + 1, *caught["x"].shape[1:]),
        evaluations=caught["sampler"].evaluations(caught["path"]),
        per_level=jax.device_get(caught["prepared"]),
        sampler=caught["sampler"],
        # MeanFlow bounds the data at the end only (`policies/meanflow.py`).
        clip=caught.get("clip", np.inf),
        last_clip=config.sampler.clip if is_meanflow else np.inf,
        prediction_type="velocity" if is_meanflow else config.predict,
    )


def coefficients(plan: UnrolledSampler) -> list[Coefficients]:
    """The factors of each of the N evaluations."""
    # Both equations are linear, so their factors are their values at unit vectors. The levels are
    # float32, as in dpjax's own loop; what follows from them is computed in float64.
    single = lambda leaf: np.asarray(leaf, np.float32).astype(np.float64)
    with jax.enable_x64(True):
        now, to = jax.tree.map(single, (plan.evaluations.now, plan.evaluations.to))
        weights = plan.evaluations.weight
        weights = np.zeros(len(now.alpha)) if weights is None else single(weights)
        return [
            _coefficients_at(plan, now[i], to[i], float(weights[i])) for i in range(len(now.alpha))
        ]


def _coefficients_at(plan: UnrolledSampler, now: Level, to: Level, weight: float) -> Coefficients:
    """The factors of the evaluation at level `now` that steps to `to`."""
    # 1. The estimates: x̂_0 and ε̂ for (x, y) = (1, 0) and (0, 1).
    x, y = np.eye(2)
    estimate = parameterization.estimate(plan.prediction_type, y, x, now)
    # 2. The step, for unit vectors of (x, x̂_0, ε̂, z). That x̂_0 takes the place of ε̂ (diffusers
    # 0.11) is left to the graph, which knows the clipped x̂_0 from the other.
    x, x0, eps, z = np.eye(4)
    sampler = plan.sampler._replace(
        rederive_eps=plan.sampler.rederive_eps and not plan.sampler.x0_as_eps, x0_as_eps=False
    )
    step = sampling.step(sampler, x, Estimate(x0, eps), now, to, lambda: z, np.inf)
    return Coefficients(np.asarray(estimate.x0), np.asarray(estimate.eps), np.asarray(step), weight)


def reference(config: ConfigDict, spec: Spec, params: Params) -> Any:
    """dpjax's own `(noise, obs) -> actions`, for the same noise as the graph's."""

    @jax.jit
    def sample_actions(noise, obs):
        loop = lambda predict, x, path, keys, **options: sampling.sample(
            predict, noise[0], path, keys, noise=noise[1:], **options
        )
        policy = build.policy(config, None, spec, sampling_loop=loop)
        return policy.sample(params, jax.random.key(0), obs)

    return sample_actions
