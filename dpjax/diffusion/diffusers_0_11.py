"""What diffusers 0.11 did: for weights whose published numbers were made with it.

Two of its schedulers walked otherwise than they do since, and the original (Chi et al. 2023)
and what was built on it ran on them:

    DDPM, S < K             asked at t = 0, K//S, 2 K//S, … below K, from the top, and always
                            walked to t - 1 (until diffusers 0.13, their PR 2076)
    DDIM, prediction x_0    took the network's x̂_0 for ε̂ too (until 0.15, their PR 2094)

With S = K, and for DDIM with predictions of ε, old and new are the same.
"""

import numpy as np

from dpjax.core.errors import UserError
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import MAX_FIRST_ALPHA_BAR, Path, Schedule

VERSIONS = ("current", "0.11")


def schedule(current: Schedule, num_levels: int) -> Schedule:
    """A schedule whose paths are those of 0.11's DDPM; spacing is not looked at."""

    def path(num_steps: int, spacing: str = "auto") -> Path:
        del spacing
        every = current.path(num_levels, "leading")  # levels K - 1 … 0, each to the one below
        steps = np.arange(0, num_levels, max(num_levels // num_steps, 1))[::-1]
        now, to = (level[num_levels - 1 - steps] for level in every)
        if now.alpha[0] ** 2 > MAX_FIRST_ALPHA_BAR:
            raise UserError(
                f"config.sampler.diffusers='0.11' with num_steps={num_steps} starts at level "
                f"{steps[0]} of {num_levels}, where ᾱ = {now.alpha[0] ** 2:.2f} is far from noise: "
                "use more steps (config.sampler.num_steps or --steps), or 'current'."
            )
        return Path(now, to)

    return current._replace(path=path)


def as_in(
    version: str, current: Schedule, num_levels: int, name: str, sampler: Sampler, predict: str
) -> tuple[Schedule, Sampler]:
    """The schedule and the sampler `name` as they were; others than ddpm and ddim as they are."""
    if version == "0.11" and name == "ddpm":
        return schedule(current, num_levels), sampler
    if version == "0.11" and name == "ddim":
        return current, sampler._replace(x0_as_eps=predict == "sample")
    return current, sampler
