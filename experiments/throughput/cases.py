"""What is measured: training steps and sampled action chunks of networks of stated sizes.

The sizes are the same for dpjax and PyTorch: To 2, Tp 16, 2 action dims, kernel 5, 18 + 2 observed
numbers (or an image of 96 px, cropped to 84, and 2 numbers), 100 noise levels. Imports nothing,
since both sides read it.
"""

NETWORKS = {
    "unet_small": dict(widths=(64, 128, 256), time_features=128),
    "unet_65m": dict(widths=(256, 512, 1024), time_features=256),
    "image": dict(widths=(256, 512, 1024), time_features=128, camera=True),
    "transformer": dict(layers=8, width=256, heads=4),
}
TRAIN_BATCH = {"unet_small": 64, "unet_65m": 64, "image": 32, "transformer": 64}
SAMPLE_BATCHES = (1, 16, 64, 256)
SAMPLERS = (("ddpm", 100), ("ddim", 10))
FEW_STEPS = ("meanflow", 1)  # the few-step sampler of experiments/samplers


def training(network: str) -> dict:
    """The case of one optimizer step."""
    batch = TRAIN_BATCH[network]
    return dict(name=f"train_{network}", kind="train", network=network, batch=batch)


def sampling(network: str, sampler: str, steps: int, batch: int) -> dict:
    """The case of sampling action chunks for a batch of observations."""
    name = f"sample_{network}_{sampler}-{steps}_b{batch}"
    sizes = dict(name=name, kind="sample", network=network, batch=batch)
    return {**sizes, "sampler": sampler, "steps": steps}


def everything() -> list[dict]:
    """All cases; the transformer has no few-step sampler."""
    samplings = [
        sampling(network, *sampler, batch)
        for network, sizes in NETWORKS.items()
        for sampler in ((*SAMPLERS, FEW_STEPS) if "widths" in sizes else SAMPLERS)
        for batch in SAMPLE_BATCHES
    ]
    return [*map(training, NETWORKS), *samplings]
