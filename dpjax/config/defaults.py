"""The table of all keys of a config: default, allowed values, unit and meaning.

A key is declared here only. The config (`get_config`), the checks of types and values
(`dpjax.config.checks`), `python -m dpjax.train --help` and docs/config.md follow from this table.
"Paper" means Chi et al. 2023, with the configurations published with it. Sizes of the data, such as
that of an action, are read from the data, so there are no keys for them.
"""

from ml_collections import ConfigDict

from dpjax.config import keys
from dpjax.config.components import CONDITIONINGS, DENOISERS, DTYPES, METHODS, SAMPLERS, SCHEDULES
from dpjax.config.keys import ABOVE_0, AT_LEAST_0, Key, below, share, up_to
from dpjax.core import normalizer
from dpjax.diffusion import agreement, diffusers_0_11
from dpjax.diffusion.parameterization import PREDICTION_TYPES
from dpjax.diffusion.schedules import SPACINGS
from dpjax.nets import resnet
from dpjax.ops.kernels import KERNELS
from dpjax.training import parallel

# numpy's seeds are 32 bits wide.
SEED = below(2**32)
MODES = tuple(normalizer.MODES)

KEYS: keys.Table = {
    # The task, the random seed, and the number of processes.
    "task": Key("pusht", doc="a task of dpjax/tasks: its observations and its simulator"),
    "seed": Key(42, SEED, doc="seed of weights, batches and noise (42 is the paper's first)"),
    "distributed": Key(False, doc="whether several processes train together (docs/scaling.md)"),
    # Steps of an action chunk: To are observed, Tp predicted, Ta executed.
    "horizon": {
        "obs": Key(2, ABOVE_0, "steps", "To, the observed steps (paper, table 9)"),
        "predict": Key(16, ABOVE_0, "steps", "Tp, the predicted steps; a U-Net halves them"),
        "act": Key(8, ABOVE_0, "steps", "Ta, the steps executed before the next observation"),
    },
    # Demonstrations: their location, the columns to use, the episodes to hold out.
    "data": {
        "dir": Key("", doc='an RLDS directory, or several: "a,b"'),
        "weights": Key("", doc='shares of data sets in a batch, such as "2,1"; "": by size'),
        "split": Key("train", doc="the split of the data set"),
        "columns": Key(
            {"state": "observation/state", "action": "action"},
            doc="{column: path inside an RLDS step}; empty, with task custom: all columns",
        ),
        "on_bad": Key("refuse", ("refuse", "skip"), doc="bad episodes: an error, or skipped"),
        "val_fraction": Key(0.02, below(1), doc="share of episodes to hold out (paper)"),
        "val_seed": Key(42, SEED, doc="seed that chooses the held-out episodes"),
        "goals": Key({}, doc="{new observation: observation whose last value becomes the goal}"),
        "mirror": Key(False, doc="train on mirror images too (only for tasks that have them)"),
        "max_episodes": Key(0, AT_LEAST_0, "episodes", "random training episodes; 0: all"),
        "memory": Key(0.0, AT_LEAST_0, "GiB", "RAM for images, others go to disk; 0: half of it"),
        "spill": Key("", doc='folder for images on disk; "": the system\'s temporary folder'),
    },
    # The representation that the network learns: rotations in 6-D, relative actions.
    "representation": {
        "layouts": Key(
            {},
            doc='{column: "3 axis_angle 1"}: the rotations among the dims, with their form '
            "(dpjax/core/rotations.py); they are learned in 6-D (Zhou et al. 2019)",
        ),
        "relative": Key("", doc='observation that actions are relative to; "": absolute actions'),
    },
    # The cameras: the observations that are images, with their sizes.
    "cameras": Key(
        {},
        unit="px",
        doc="{observation: dict(size, resize, crop)}, each (height, width) or (); the crop is "
        "random in training, otherwise central (paper: 84 of 96)",
    ),
    # Image augmentation in training. All steps of an example are changed in the same way.
    "augment": {
        "shift": Key(0, AT_LEAST_0, "px", "largest random shift of an image"),
        "brightness": Key(0.0, up_to(1), doc="x for a random factor from 1 - x to 1 + x"),
        "contrast": Key(0.0, up_to(1), doc="as for brightness"),
        "saturation": Key(0.0, up_to(1), doc="as for brightness"),
        "hue": Key(0.0, up_to(0.5), "turns", "largest random shift on the color circle"),
    },
    # The image encoder, a ResNet per camera. Without cameras it is not used.
    "encoder": {
        "depth": Key(18, tuple(resnet.BLOCKS), "layers", "depth of the ResNet"),
        "width": Key(64, ABOVE_0, "channels", "width of the ResNet's first stage"),
        "pool": Key("spatial_softmax", resnet.POOLS, doc="how feature maps become a vector"),
        "keypoints": Key(32, ABOVE_0, doc="number of points of the spatial softmax"),
        "features": Key(64, ABOVE_0, doc="number of features per camera"),
        "shared": Key(False, doc="one encoder for all cameras"),
        "norm": Key("group", resnet.NORMS, doc="frozen: the constants of a trained BatchNorm"),
        "weights": Key("", doc="torchvision's ResNet, .safetensors or .npz; \"\": random weights"),
        "lr": Key(1.0, AT_LEAST_0, "optim.lr", "learning rate of the encoders; 0: frozen"),
    },
    # Normalization: the network learns numbers in or near [-1, 1].
    "normalize": {
        "action": Key("limits", MODES, doc="how actions are scaled (dpjax/core/normalizer.py)"),
        "obs": Key("limits", MODES, doc="how observations other than images are scaled"),
        "per_key": Key({}, doc="{observation or action: mode}, in place of the two above"),
        "image": Key("unit", tuple(normalizer.IMAGE_MODES), doc="[-1, 1], or ImageNet's moments"),
        "quantile": Key(0.01, below(0.5), doc='share that "quantile" ignores at each end'),
        "min_range": Key(
            0.0,
            AT_LEAST_0,
            "data",
            "0: what counts as motion is relative (docs/data.md); above 0: a dim with a smaller "
            "range is constant, any other is scaled by its own range",
        ),
    },
    # The network. These keys are the U-Net's fields. Other networks have others (dpjax/nets).
    "denoiser": {
        "name": Key("unet1d", tuple(DENOISERS), doc="the network; the keys below are its fields"),
        "widths": Key((256, 512, 1024), unit="channels", doc="width of each level of the U-Net"),
        "kernel_size": Key(5, unit="steps", doc="size of the convolution kernels, odd"),
        "groups": Key(8, doc="number of groups of each GroupNorm"),
        "time_features": Key(256, doc="size of the embedding of the noise level"),
        "film_scale": Key(True, doc="FiLM with scale and bias; False: with a bias only"),
    },
    # The training method, and the keys of MeanFlow.
    "method": Key("diffusion", METHODS, doc="meanflow: 1 to 4 steps (Geng et al. 2025)"),
    "meanflow": {
        "share": Key(0.25, up_to(1), doc="share of examples with r < t (their table 1a)"),
        "power": Key(1.0, AT_LEAST_0, doc="power of the adaptive weight, 0: none (table 1e)"),
    },
    # How the features of the observations enter the network.
    "condition": Key(
        "features",
        tuple(CONDITIONINGS),
        doc="features: all steps at once; local: step by step (unet1d); inpaint: observations "
        "are denoised with the actions",
    ),
    # The noise schedule of training.
    "schedule": {
        "name": Key("cosine", tuple(SCHEDULES), doc="flow: straight paths (Liu et al. 2023)"),
        "num_levels": Key(100, ABOVE_0, "levels", "K; for flows the scale of the time input"),
    },
    # The output that the network learns.
    "predict": Key(
        "epsilon", tuple(PREDICTION_TYPES), doc="prediction type; velocity for a flow"
    ),
    # The sampler. A trained policy can be sampled with other values than those of its training.
    "sampler": {
        "name": Key(
            "ddpm",
            tuple(SAMPLERS),
            doc="euler: ddim on a flow; dpm_solver: ++2M (Lu et al. 2022); heun: Karras et al. "
            "2022, algorithm 1, with 2 S - 1 evaluations",
        ),
        "num_steps": Key(100, ABOVE_0, "steps", "S, the steps of the sampling loop"),
        "spacing": Key(
            "auto", ("auto", *SPACINGS), doc="auto: leading if S divides K; trailing for heun"
        ),
        "eta": Key(0.0, up_to(1), doc="noise of ddim: 0 is deterministic, 1 is ddpm's noise"),
        "clip": Key(
            1.0, ABOVE_0._replace(infinite=True), "network", "bound of the predicted x_0"
        ),
        "diffusers": Key(
            "current", diffusers_0_11.VERSIONS, doc="0.11: its ddpm and ddim, for old weights"
        ),
        "warm_start": Key(
            0.0, below(1), doc="share of steps that the last chunk saves (Janner et al. 2022)"
        ),
        "agree": Key(
            "none",
            ("none", *agreement.METHODS),
            doc="with the last chunk, where two meet: docs/delays.md says what each costs",
        ),
        "agree_share": Key(1.0, share(), doc="share of the steps, from noise on, that agree"),
        "beta": Key(5.0, ABOVE_0, doc="largest guidance of rtc (Black et al. 2025)"),
        "std": Key(1.0, ABOVE_0, "network", "std of the data that rtc assumes"),
        "unroll": Key(1, ABOVE_0, "steps", "steps per iteration of the compiled loop"),
    },
    # The squared error of the prediction.
    "loss": {"mask_padding": Key(False, doc="leave padded steps out (the paper counts them)")},
    # AdamW, and its learning rate over the training.
    "optim": {
        "lr": Key(1e-4, ABOVE_0, doc="learning rate of AdamW after the warm-up"),
        "b1": Key(0.95, below(1), doc="decay of the mean of gradients"),
        "b2": Key(0.999, below(1), doc="decay of the mean of squared gradients"),
        "eps": Key(1e-8, ABOVE_0, doc="added to the root of the mean square"),
        "weight_decay": Key(1e-6, AT_LEAST_0, doc="decoupled weight decay"),
        "decay": Key("all", ("all", "matrices"), doc="matrices: not biases, norms, positions"),
        "warmup": Key(500, AT_LEAST_0, "steps", "from 0 to lr; then a cosine to end * lr"),
        "end": Key(0.0, up_to(1), doc="share of lr at the end of the training; 1: constant"),
        "grad_clip": Key(10.0, AT_LEAST_0, doc="bound of the global norm (as LeRobot); 0: none"),
    },
    # The exponential moving average of the weights, which is the trained policy.
    "ema": {
        "power": Key(0.75, AT_LEAST_0, doc="the decay is 1 - (1 + step)^-power"),
        "max": Key(0.9999, up_to(1), doc="the largest decay (paper's code)"),
    },
    # Length of the training, its batches, devices and initial weights.
    "train": {
        "steps": Key(450_000, ABOVE_0, "steps", "optimizer steps (paper: 4,500 epochs)"),
        "batch": Key(256, ABOVE_0, "examples", "in the global batch"),
        "steps_per_call": Key(1, ABOVE_0, "steps", "steps per compiled call; at most about 2 s"),
        "parallel": Key("pmap", tuple(parallel.STRATEGIES), doc="how devices share a batch"),
        "seeds": Key(1, ABOVE_0, "runs", "runs side by side, with seeds seed, seed + 1, …"),
        "accumulate": Key(1, ABOVE_0, doc="parts of a batch, one after another: less memory"),
        "init_from": Key("", doc="a run folder whose averaged weights are the start"),
    },
    # Arithmetic and memory of the networks, which do not change what is learned.
    "compute": {
        "dtype": Key("float32", tuple(DTYPES), doc="of the networks' arithmetic only"),
        "remat": Key(False, doc="compute blocks again for the gradient: slower, less memory"),
        "kernels": Key("auto", KERNELS, doc="xla: none of the fast forms of dpjax/ops"),
    },
    # Each `every` is rounded up to whole calls of train.steps_per_call steps; 0 means never.
    "log": {"every": Key(50, AT_LEAST_0, "steps", "between lines of metrics.jsonl")},
    # Validation on held-out demonstrations.
    "val": {
        "every": Key(1000, AT_LEAST_0, "steps", "between validations on held-out windows"),
        "windows": Key(128, ABOVE_0, "windows", "evenly spread over the held-out episodes"),
        "samples": Key(4, ABOVE_0, "chunks", "samples per window, for best and mean error"),
        "num_steps": Key(10, ABOVE_0, "steps", "S in validation; 100 take very long"),
    },
    # Rollouts in the task's simulator.
    "eval": {
        "every": Key(10_000, AT_LEAST_0, "steps", "between rollouts in the simulator"),
        "episodes": Key(50, ABOVE_0, "episodes", "on the selection seeds, not the official ones"),
        "num_envs": Key(50, ABOVE_0, "episodes", "at once, in one batch of the policy"),
        "num_steps": Key(10, ABOVE_0, "steps", "S in training; dpjax.evaluate: sampler.num_steps"),
    },
    # Checkpoints, and the number of them to keep.
    "save": {
        "every": Key(5_000, AT_LEAST_0, "steps", "between checkpoints"),
        "keep_best": Key(3, AT_LEAST_0, "checkpoints", "by score; the last one is always kept"),
    },
}  # fmt: skip

# Open sections whose values are texts. Users choose their keys, and can add some on the command
# line.
OPEN_TEXTS = ("data.columns", "data.goals", "representation.layouts", "normalize.per_key")
# All sections whose keys may differ from the table: those above, the keys of another network, and
# the cameras.
OPEN = (*OPEN_TEXTS, "denoiser", "cameras")


def get_config() -> ConfigDict:
    """A config with every key at its default: the paper's U-Net on low-dimensional observations.

    Only `data.dir` is empty, and must be set.
    """
    return ConfigDict(keys.defaults(KEYS))
