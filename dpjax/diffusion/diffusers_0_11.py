"""The samplers of diffusers 0.11, for weights whose published results were made with it.

Two of its schedulers differ from those of later versions. The code of Chi et al. (2023), and
much of what was built on it, uses them:

    DDPM, S < K             evaluates at t = 0, K//S, 2 K//S, … (largest first), but always
                            steps to t - 1 (until diffusers 0.13, their PR 2076)
    DDIM, prediction x_0    uses the network's x̂_0 as ε̂ too (until 0.15, their PR 2094)

DDPM with S = K and DDIM with predictions of ε are the same in both versions.
"""

import numpy as np

from dpjax.core.errors import UserError
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import MAX_FIRST_ALPHA_BAR, Path, Schedule

# "current" stands for all versions that agree with the equations of `samplers`.
VERSIONS = ("current", "0.11")


def ddpm_schedule(current: Schedule, num_levels: int) -> Schedule:
    """The schedule `current` with the paths of DDPM in 0.11. K is `num_levels`."""

    def path(num_steps: int, spacing: str = "auto") -> Path:
        del spacing  # 0.11 has only the one below
        # All levels K - 1 … 0, each with a step to the level below it: [K].
        every = current.path(num_levels, "leading")
        # The stride K//S is rounded down, so S = 16 of K = 100 gives 17 evaluations.
        steps = np.arange(0, num_levels, max(num_levels // num_steps, 1))[::-1]
        # Level t is entry K - 1 - t of `every`, whose `to` is level t - 1.
        now, to = (level[num_levels - 1 - steps] for level in every)
        # Sampling starts from pure noise, and the first level must be near it.
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
    """The schedule and the sampler as they are in the given version of diffusers.

    version: one of VERSIONS.
    num_levels: K.
    name: the sampler's name. Only "ddpm" and "ddim" differ between the versions.
    """
    # DDPM differs in the levels that it visits, DDIM in the ε̂ of its steps.
    if version == "0.11" and name == "ddpm":
        return ddpm_schedule(schedule, num_levels), sampler
    if version == "0.11" and name == "ddim":
        return schedule, sampler._replace(x0_as_eps=prediction_type == "sample")
    return schedule, sampler
