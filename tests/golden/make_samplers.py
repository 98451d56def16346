"""Writes samplers.npz: what diffusers' schedulers do with a toy network.

    pip install torch==2.13.0 diffusers==0.42.1 numpy
    python make_samplers.py

The network is y = 0.5 tanh(x) + t / 10,000, whatever the prediction; the noise z of
every step is recorded, and the same in all cases.

Keys: x [2, 16, 3] the start · z [100, 2, 16, 3] fresh noise of step i ·
alphas_cumprod/<schedule> [100] · timesteps/<spacing>/<S> [S] ·
ddpm/<prediction>/<S>/<clip> and ddim/<prediction>/<spacing>/<S>/<eta>/<clip>
[2, 16, 3] the end · ddim_to/<spacing>/<S> [S] the level that diffusers' DDIM walks to
(-1: the data), which is not the next one where S does not divide K ·
dpm/<prediction>/<spacing>/<S>/<clip> [2, 16, 3] the end of DPM-Solver++(2M) and
dpm_timesteps/<spacing>/<S> [S] its levels, which are no other scheduler's; clipping is
its thresholding with every bound at 1.
"""

import itertools
from pathlib import Path

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
import numpy as np
import torch

K = 100
SCHEDULES = {
    "cosine": "squaredcos_cap_v2",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
CLIPS = (True, False)
DDIM_PATHS = (("leading", 10), ("leading", 100), ("trailing", 10), ("trailing", 16))
DPM_PATHS = (("leading", 10), ("trailing", 10), ("linspace", 20), ("trailing", 2))


def network(x, t):
    return 0.5 * torch.tanh(x) + float(t) / 10_000


def noise(shape):
    """The fresh noise of every step, as a generator with seed 1 gives it."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(K)])


def scheduler(kind, num_steps, **options):
    made = kind(num_train_timesteps=K, beta_schedule="squaredcos_cap_v2", **options)
    made.set_timesteps(num_steps)
    return made


def ddpm(x, prediction, num_steps, clip):
    made = scheduler(
        DDPMScheduler,
        num_steps,
        prediction_type=prediction,
        clip_sample=clip,
        timestep_spacing="leading",
    )
    generator = torch.Generator().manual_seed(1)
    for t in made.timesteps:
        x = made.step(network(x, t), t, x, generator=generator).prev_sample
    return x.numpy()


def ddim(x, z, prediction, spacing, num_steps, eta, clip):
    made = scheduler(
        DDIMScheduler,
        num_steps,
        prediction_type=prediction,
        clip_sample=clip,
        timestep_spacing=spacing,
    )
    for t, fresh in zip(made.timesteps, z):
        options = {"eta": eta, "variance_noise": fresh if eta else None}
        x = made.step(network(x, t), t, x, **options).prev_sample
    return x.numpy()


def dpm(x, prediction, spacing, num_steps, clip):
    made = scheduler(
        DPMSolverMultistepScheduler,
        num_steps,
        prediction_type=prediction,
        timestep_spacing=spacing,
        thresholding=clip,
        sample_max_value=1.0,
    )
    for t in made.timesteps:
        x = made.step(network(x, t), t, x).prev_sample
    return x.numpy(), made.timesteps.numpy()


def main():
    x = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
    z = noise(x.shape)
    out = {"x": x.numpy(), "z": z.numpy()}
    for name, theirs in SCHEDULES.items():
        made = DDPMScheduler(num_train_timesteps=K, beta_schedule=theirs)
        out[f"alphas_cumprod/{name}"] = made.alphas_cumprod.numpy()
    for spacing, num_steps in itertools.product(
        ("leading", "trailing", "linspace"), (1, 8, 10, 16, 33, 60, 100)
    ):
        made = scheduler(DDIMScheduler, num_steps, timestep_spacing=spacing)
        out[f"timesteps/{spacing}/{num_steps}"] = made.timesteps.numpy()
    for prediction, num_steps, clip in itertools.product(PREDICTIONS, (100, 10), CLIPS):
        out[f"ddpm/{prediction}/{num_steps}/{clip}"] = ddpm(x, prediction, num_steps, clip)
    for prediction, (spacing, num_steps), eta, clip in itertools.product(
        PREDICTIONS, DDIM_PATHS, (0.0, 0.5), CLIPS
    ):
        case = (prediction, spacing, num_steps, eta, clip)
        out["/".join(map(str, ("ddim", *case)))] = ddim(x, z, *case)
    for spacing, num_steps in DDIM_PATHS:
        visited = out[f"timesteps/{spacing}/{num_steps}"]
        out[f"ddim_to/{spacing}/{num_steps}"] = visited - K // num_steps
    for prediction, (spacing, num_steps), clip in itertools.product(PREDICTIONS, DPM_PATHS, CLIPS):
        end, visited = dpm(x, prediction, spacing, num_steps, clip)
        out[f"dpm/{prediction}/{spacing}/{num_steps}/{clip}"] = end
        out[f"dpm_timesteps/{spacing}/{num_steps}"] = visited
    np.savez_compressed(Path(__file__).parent / "samplers.npz", **out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
