"""What is measured: networks at stated sizes, training steps and plans. Imports nothing.

Sizes are the same on both sides: To 2, Tp 16, 2 action dims, kernel 5, 18 + 2 numbers
observed (or a 96 px image, of which 84 are seen, and 2 numbers), 100 noise levels.
"""

NETWORKS = {
    "unet_small": dict(widths=(64, 128, 256), time_features=128),
    "unet_65m": dict(widths=(256, 512, 1024), time_features=256),
    "image": dict(widths=(256, 512, 1024), time_features=128, camera=True),
    "transformer": dict(layers=8, width=256, heads=4),
}
TRAIN_BATCH = {"unet_small": 64, "unet_65m": 64, "image": 32, "transformer": 64}
BATCHES = (1, 16, 64, 256)  # of plans
PLANS = (("ddpm", 100), ("ddim", 10))
FEW = ("meanflow", 1)  # the few-step sampler of experiments/samplers


def training(network: str) -> dict:
    batch = TRAIN_BATCH[network]
    return dict(name=f"train_{network}", kind="train", network=network, batch=batch)


def plan(network: str, sampler: str, steps: int, batch: int) -> dict:
    name = f"sample_{network}_{sampler}-{steps}_b{batch}"
    found = dict(name=name, kind="sample", network=network, batch=batch)
    return {**found, "sampler": sampler, "steps": steps}


def everything() -> list[dict]:
    """All cases; the transformer has no few-step sampler."""
    plans = [
        plan(network, *sampler, batch)
        for network, sizes in NETWORKS.items()
        for sampler in ((*PLANS, FEW) if "widths" in sizes else PLANS)
        for batch in BATCHES
    ]
    return [*map(training, NETWORKS), *plans]
