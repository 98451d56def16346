"""Writes original_small.ckpt as the original writes its checkpoints: torch.save with dill.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 dill omegaconf numpy
    /tmp/torch/bin/python tests/golden/make_checkpoint.py

A low-dim U-Net policy of the original's names and sizes of ours, its numbers drawn by numpy
(`state`, which the test draws again). Some tensors are views: transposed, and parts of a
larger one, as torch may save them.
"""

from pathlib import Path

import numpy as np

WIDTHS, KERNEL, TIME, OBS, ACTION = (8, 16), 3, 8, 3, 2
CFG = {
    "horizon": 4,
    "n_obs_steps": 2,
    "n_action_steps": 2,
    "keypoints": {"x": [1, 2.5, None, "text"]},
    "policy": {
        "_target_": "diffusion_policy.policy.there.DiffusionUnetLowdimPolicy",
        "model": {
            "_target_": "diffusion_policy.model.diffusion.conditional_unet1d.ConditionalUnet1D",
            "input_dim": "${eval:'2'}",
            "local_cond_dim": None,
            "global_cond_dim": 2 * OBS,
            "diffusion_step_embed_dim": TIME,
            "down_dims": list(WIDTHS),
            "kernel_size": KERNEL,
            "n_groups": 8,
            "cond_predict_scale": True,
        },
        "noise_scheduler": {
            "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
            "num_train_timesteps": 100,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
        "horizon": "${horizon}",
        "num_inference_steps": 100,
        "obs_as_local_cond": False,
        "obs_as_global_cond": True,
        "pred_action_steps_only": False,
        "oa_step_convention": True,
    },
    "training": {"use_ema": True, "device": "cuda:0"},
}


def state(seed: int) -> dict[str, np.ndarray]:
    """A state dict of the policy."""
    rng, made = np.random.default_rng(seed), {}
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)

    def layer(name, *shape):
        made[f"model.{name}.weight"], made[f"model.{name}.bias"] = draw(*shape), draw(shape[0])

    def block(name, inputs, outputs):
        for i, size in enumerate((inputs, outputs)):
            layer(f"{name}.blocks.{i}.block.0", outputs, size, KERNEL)
            layer(f"{name}.blocks.{i}.block.1", outputs)
        layer(f"{name}.cond_encoder.1", 2 * outputs, TIME + 2 * OBS)
        if inputs != outputs:
            layer(f"{name}.residual_conv", outputs, inputs, 1)

    small, large = WIDTHS
    sizes = {"down_modules.0": (ACTION, small), "down_modules.1": (small, large)}
    for name, (inputs, outputs) in {**sizes, "up_modules.0": (2 * large, small)}.items():
        block(f"{name}.0", inputs, outputs)
        block(f"{name}.1", outputs, outputs)
    for i in range(2):
        block(f"mid_modules.{i}", large, large)
    layer("down_modules.0.2.conv", small, small, 3)
    layer("up_modules.0.2.conv", small, small, 4)
    layer("diffusion_step_encoder.1", 4 * TIME, TIME)
    layer("diffusion_step_encoder.3", TIME, 4 * TIME)
    layer("final_conv.0.block.0", small, small, KERNEL)
    layer("final_conv.0.block.1", small)
    layer("final_conv.1", ACTION, small, 1)
    for key, size in (("obs", OBS), ("action", ACTION)):
        made[f"normalizer.params_dict.{key}.scale"] = 0.5 + draw(size) ** 2
        made[f"normalizer.params_dict.{key}.offset"] = draw(size)
        for part in ("min", "max", "mean", "std"):
            made[f"normalizer.params_dict.{key}.input_stats.{part}"] = draw(size)
    made["mask_generator._dummy_variable"] = np.zeros(0, np.float32)
    return made


def main():
    from collections import OrderedDict

    import dill
    from omegaconf import OmegaConf
    import torch

    def tensors(seed):
        found = OrderedDict((name, torch.from_numpy(x)) for name, x in state(seed).items())
        name = "model.diffusion_step_encoder.1.weight"
        found[name] = found[name].t().contiguous().t()  # strides the other way round
        both = torch.cat([found["model.final_conv.1.bias"], torch.zeros(3)])
        found["model.final_conv.1.bias"] = both[:ACTION]  # a part of a larger one
        return found

    OmegaConf.register_new_resolver("eval", lambda text: 2)
    cfg = OmegaConf.create(CFG)
    OmegaConf.resolve(cfg)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=1e-4)
    weight.sum().backward()
    optimizer.step()
    payload = {
        "cfg": cfg,
        "state_dicts": {
            "model": OrderedDict(list(tensors(1).items())[:3]),
            "ema_model": tensors(0),
            "optimizer": optimizer.state_dict(),
        },
        "pickles": {"global_step": dill.dumps(1234), "_output_dir": dill.dumps("out")},
    }
    path = Path(__file__).with_name("original_small.ckpt")
    torch.save(payload, path, pickle_module=dill)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
