"""The samplers of diffusers 0.11, for weights whose published results were made with it.

Two of its schedulers differ from those of later versions. The code of Chi et al. (2023), and
much that was built on it, ran on them:

    DDPM, S < K             evaluated at t = 0, K//S, 2 K//S, … (largest first), and always
                            stepped to t - 1 (until diffusers 0.13, their PR 2076)
    DDIM, prediction x_0    used the network's x̂_0 in place of ε̂ too (until 0.15, their PR 2094)

With S = K, and for DDIM with predictions of ε, the old and the new samplers are the same.
"""

import numpy as np

from dpjax.core.errors import UserError
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import MAX_FIRST_ALPHA_BAR, Path, Schedule

VERSIONS = ("current", "0.11")


def ddpm_schedule(current: Schedule, num_levels: int) -> Schedule:
    """`current` with the paths of 0.11's DDPM, which ignore the spacing."""

    def path(num_steps: int, spacing: str = "auto") -> Path:
        del spacing
        # All levels K - 1 … 0, each with a step to the level below it.
        every = current.path(num_levels, "leading")
        # The stride is rounded down, so S = 16 of K = 100 gives 17 evaluations.
        steps = np.arange(0, num_levels, max(num_levels // num_steps, 1))[::-1]
        # Level t is entry K - 1 - t of `every`, whose `to` is level t - 1.
        now, to = (level[num_levels - 1 - steps] for level in every)
        if now.alpha[0] ** 2 > MAX_FIRST_ALPHA_BAR:
            raise UserError(
                f"diffusers='0.11' with num_steps={num_steps} starts at level {steps[0]} of "
                f"{num_levels}, where ᾱ = {now.alpha[0] ** 2:.2f} is far from noise: use more "
                "steps, or diffusers='current'.",
                argument="diffusers",
            )
        return Path(now, to)

    return current._replace(path=path)


def as_in(
    version: str,
    schedule: Schedule,
    num_levels: int,
    name: str,
    sampler: Sampler,
    prediction_type: str,
) -> tuple[Schedule, Sampler]:
    """The schedule and sampler as a version of diffusers had them.

    version: one of VERSIONS. name: the sampler's name; only "ddpm" and "ddim" ever change.
    """
    if version == "0.11" and name == "ddpm":
        return ddpm_schedule(schedule, num_levels), sampler
    if version == "0.11" and name == "ddim":
        return schedule, sampler._replace(x0_as_eps=prediction_type == "sample")
    return schedule, sampler
