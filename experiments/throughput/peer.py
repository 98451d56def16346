"""PyTorch's side: LeRobot's DiffusionModel, and the authors' transformer written with torch.nn.

Started by `experiments.throughput` in a separate environment (`make bench-peers`) without dpjax.
A training step is loss, gradients, clipping and AdamW; dpjax's step averages the weights as well.
With `case["compiled"]` the model goes through torch.compile.
"""

import os

from cases import NETWORKS
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel
import torch
import worker

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODE = "reduce-overhead" if DEVICE == "cuda" else "default"  # reduce-overhead: CUDA graphs


def lerobot(case: dict) -> tuple[torch.nn.Module, dict]:
    """LeRobot's model for a case, and a batch for it."""
    sizes = NETWORKS[case["network"]]
    feature = lambda kind, *shape: PolicyFeature(type=kind, shape=shape)
    inputs = {"observation.state": feature(FeatureType.STATE, 2)}
    if sizes.get("camera"):
        inputs["observation.image"] = feature(FeatureType.VISUAL, 3, 96, 96)
    else:
        inputs["observation.environment_state"] = feature(FeatureType.ENV, 18)
    config = DiffusionConfig(
        device=DEVICE,
        input_features=inputs,
        output_features={"action": feature(FeatureType.ACTION, 2)},
        down_dims=sizes["widths"],
        diffusion_step_embed_dim=sizes["time_features"],
        crop_shape=(84, 84) if sizes.get("camera") else None,
        noise_scheduler_type=case.get("sampler", "ddpm").upper(),
        num_inference_steps=case.get("steps", 100),
        compile_model=case["compiled"],
        compile_mode=MODE,
    )
    batch = case["batch"]
    data = {
        "observation.state": torch.rand(batch, 2, 2),
        "action": torch.rand(batch, 16, 2) * 2 - 1,
        "action_is_pad": torch.zeros(batch, 16, dtype=torch.bool),
    }
    if sizes.get("camera"):
        data["observation.images"] = torch.rand(batch, 2, 1, 3, 96, 96)
    else:
        data["observation.environment_state"] = torch.rand(batch, 2, 18)
    model = DiffusionModel(config).to(DEVICE)
    return model, {key: x.to(DEVICE) for key, x in data.items()}


class Transformer(torch.nn.Module):
    """torch's decoder with the sizes of Chi et al. 2023 and 100 noise levels."""

    def __init__(self, layers: int, heads: int, width: int, sampler: str, steps: int):
        super().__init__()
        self.sampler = sampler
        self.steps = steps
        nn = torch.nn
        self.action_in = nn.Linear(2, width)
        self.obs_in = nn.Linear(20, width)
        self.level = nn.Embedding(100, width)
        self.position = nn.Parameter(torch.zeros(16, width))
        self.memory_position = nn.Parameter(torch.zeros(3, width))
        up = nn.Linear(width, 4 * width)
        down = nn.Linear(4 * width, width)
        self.memory = nn.Sequential(up, nn.Mish(), down)
        options = dict(activation="gelu", batch_first=True, norm_first=True)
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, 0.01, **options)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2)
        # Causal masks: an action step sees earlier ones, and observations up to its time.
        self.register_buffer("ahead", torch.ones(16, 16).triu(1).bool())
        t, s = torch.meshgrid(torch.arange(16), torch.arange(3), indexing="ij")
        self.register_buffer("memory_ahead", t < s - 1)
        # The cosine schedule's alpha bar for each level.
        bars = torch.cos(torch.linspace(0, 1, 101)[1:] * torch.pi / 2).clamp(1e-3) ** 2
        self.register_buffer("bars", bars)

    def denoise(self, x, level, obs):
        """The predicted noise [B, 16, 2]."""
        memory = torch.cat([self.level(level)[:, None], self.obs_in(obs)], dim=1)
        memory = self.memory(memory + self.memory_position)
        tokens = self.action_in(x) + self.position
        masks = dict(tgt_mask=self.ahead, memory_mask=self.memory_ahead)
        return self.out(self.norm(self.decoder(tokens, memory, **masks)))

    def compute_loss(self, batch):
        """Mean squared error of the predicted noise."""
        actions = batch["action"]
        level = torch.randint(0, 100, (len(actions),), device=actions.device)
        eps = torch.randn_like(actions)
        bar = self.bars[level][:, None, None]
        x = bar.sqrt() * actions + (1 - bar).sqrt() * eps
        return torch.nn.functional.mse_loss(self.denoise(x, level, batch["obs"]), eps)

    def generate_actions(self, batch):
        """DDIM, or DDPM over all levels."""
        x = torch.randn_like(batch["action"])
        levels = list(range(99, -1, -100 // self.steps))
        for now, after in zip(levels, [*levels[1:], None]):
            level = torch.full((len(x),), now, device=x.device)
            eps = self.denoise(x, level, batch["obs"])
            bar = self.bars[now]
            to = 1.0 if after is None else self.bars[after]
            x0 = ((x - (1 - bar).sqrt() * eps) / bar.sqrt()).clamp(-1, 1)
            if self.sampler == "ddim":
                x = to**0.5 * x0 + (1 - to) ** 0.5 * eps
                continue
            alpha = bar / to
            left = (1 - to) / (1 - bar)
            x = to**0.5 * (1 - alpha) / (1 - bar) * x0 + alpha.sqrt() * left * x
            if after is not None:
                x = x + (left * (1 - alpha)) ** 0.5 * torch.randn_like(x)
        return x


def transformer(case: dict) -> tuple[torch.nn.Module, dict]:
    """The transformer for a case, and a batch for it."""
    sampling = dict(sampler=case.get("sampler", "ddpm"), steps=case.get("steps", 100))
    model = Transformer(**NETWORKS[case["network"]], **sampling).to(DEVICE)
    if case["compiled"]:
        model.denoise = torch.compile(model.denoise, mode=MODE)
    data = {"obs": torch.rand(case["batch"], 2, 20), "action": torch.rand(case["batch"], 16, 2)}
    return model, {key: x.to(DEVICE) for key, x in data.items()}


def prepare(case: dict):
    """(call, facts) for `worker.serve`."""
    torch.set_num_threads(os.cpu_count())
    # Both sides compute in the same precision on a GPU: XLA's products and both sides'
    # convolutions are TF32 by default, torch's products only with this. No effect on a CPU.
    torch.backends.cuda.matmul.allow_tf32 = True
    make = lerobot if "widths" in NETWORKS[case["network"]] else transformer
    model, batch = make(case)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    if case["kind"] == "sample":
        model.eval()

        def sample():
            with torch.inference_mode():
                model.generate_actions(batch)
            wait()

        return sample, facts
    tx = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)

    def step():
        tx.zero_grad()
        model.compute_loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        tx.step()
        wait()

    return step, facts


if __name__ == "__main__":
    worker.serve(prepare, torch.cuda.max_memory_allocated if DEVICE == "cuda" else worker.host_peak)
