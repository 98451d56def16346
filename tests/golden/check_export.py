"""Whether LeRobot itself reads what `dpjax.export lerobot` writes, and computes the same.

    python check_export.py FOLDER lerobot_image_two_cameras.npz

In an environment with LeRobot 0.4.4 (`make bench-peers` makes one); FOLDER is a golden policy
that was imported and exported again. Prints the largest differences of the conditioning and
of the noise from the golden ones.
"""

import sys

from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors
import numpy as np
import torch


def main(folder: str, golden: str) -> None:
    arrays = {key: x for key, x in np.load(golden).items() if key != "meta"}
    given = {key: torch.from_numpy(x.astype(np.float32)) for key, x in arrays.items()}
    policy = DiffusionPolicy.from_pretrained(folder, strict=True).eval()
    model = policy.diffusion
    seen = {"observation.state": given["state"], "observation.images": given["images"]}
    with torch.no_grad():
        cond = model._prepare_global_conditioning(seen)
        eps = model.unet(given["noise"], given["timestep"], global_cond=cond)
    for name, x in (("cond", cond), ("eps", eps)):
        print(f"{name}: {np.abs(x.numpy() - arrays[name]).max():.1e}")
    make_pre_post_processors(policy.config, pretrained_path=folder)
    print("processors: read")


if __name__ == "__main__":
    main(*sys.argv[1:])
