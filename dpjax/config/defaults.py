"""Every key of a config: default, allowed values, unit and meaning.

This table is the one place for a key. It makes the config (`get_config`), the checks of types and
values (`dpjax.config.checks`), the list of `python -m dpjax.train --help`, and docs/config.md.
"Paper" is Chi et al. 2023 and the configurations published with it. Sizes that follow from the
data, such as the number of actions, are read from the data and are no keys.
"""

from ml_collections import ConfigDict

from dpjax.config import keys
from dpjax.config.components import CONDITIONINGS, DENOISERS, DTYPES, METHODS, SAMPLERS, SCHEDULES
from dpjax.config.keys import ABOVE_0, AT_LEAST_0, Key, below, up_to
from dpjax.core import normalizer
from dpjax.diffusion import diffusers_0_11
from dpjax.diffusion.parameterization import PREDICTION_TYPES
from dpjax.diffusion.schedules import SPACINGS
from dpjax.nets import resnet
from dpjax.ops.kernels import KERNELS
from dpjax.training import parallel

SEED = below(2**32)
MODES = tuple(normalizer.MODES)

KEYS: keys.Table = {
    # What is learned, from which seed, by how many processes.
    "task": Key("pusht", doc="what is observed, and the simulator: a name of dpjax/tasks"),
    "seed": Key(42, SEED, doc="of weights, batches and noise (the first of the paper's three)"),
    "distributed": Key(False, doc="several processes train together (docs/scaling.md)"),
    # Steps of an action chunk: To are observed, Tp predicted, Ta executed.
    "horizon": {
        "obs": Key(2, ABOVE_0, "steps", "To, observed (paper, table 9)"),
        "predict": Key(16, ABOVE_0, "steps", "Tp, predicted; a U-Net must be able to halve it"),
        "act": Key(8, ABOVE_0, "steps", "Ta, executed before the next observation"),
    },
    # Demonstrations: where they lie, which columns are used, which episodes are held out.
    "data": {
        "dir": Key("", doc='an RLDS directory, or several: "a,b"'),
        "weights": Key("", doc='shares of several in each batch, such as "2,1"; "": their sizes'),
        "split": Key("train", doc="the split of the data set"),
        "columns": Key(
            {"state": "observation/state", "action": "action"},
            doc="{column: path inside an RLDS step}; empty, with task custom: all of the data",
        ),
        "on_bad": Key("refuse", ("refuse", "skip"), doc="bad episodes: an error, or left out"),
        "val_fraction": Key(0.02, below(1), doc="share of episodes that is held out (paper)"),
        "val_seed": Key(42, SEED, doc="chooses the episodes that are held out"),
        "goals": Key({}, doc="{new observation: observation whose last value it takes}"),
        "mirror": Key(False, doc="train on mirror images too, where the task has them (pusht)"),
        "max_episodes": Key(0, AT_LEAST_0, "episodes", "train on so many at random; 0: on all"),
        "memory": Key(0.0, AT_LEAST_0, "GiB", "of images; more go to disk. 0: half of the RAM"),
        "spill": Key("", doc='folder for images on disk; "": the system\'s temporary one'),
    },
    # Forms of rotations, and actions relative to an observation.
    "representation": {
        "layouts": Key(
            {},
            doc='{column: "3 axis_angle 1"}: which dims are a rotation, learned as 6-D (Zhou et '
            "al. 2019), and in which form (dpjax/core/rotations.py)",
        ),
        "relative": Key("", doc='observation that actions are relative to, latest step; "": none'),
    },
    # Observations that are images, each with its sizes. Their keys are the user's own.
    "cameras": Key(
        {},
        unit="px",
        doc="{observation: dict(size, resize, crop)}, each (height, width) or (); crop: at random "
        "in training, otherwise the centre (paper: 84 of 96)",
    ),
    # Random changes of images in training; the same for all steps of an example.
    "augment": {
        "shift": Key(0, AT_LEAST_0, "px", "images are moved by up to so much in training"),
        "brightness": Key(0.0, up_to(1), doc="x: random factor from 1 - x to 1 + x"),
        "contrast": Key(0.0, up_to(1), doc="as brightness"),
        "saturation": Key(0.0, up_to(1), doc="as brightness"),
        "hue": Key(0.0, up_to(0.5), "turns", "random shift on the colour circle"),
    },
    # The ResNet of the cameras. Without cameras it is not used.
    "encoder": {
        "depth": Key(18, tuple(resnet.BLOCKS), "layers", "of the ResNet"),
        "width": Key(64, ABOVE_0, "channels", "of its first stage"),
        "pool": Key("spatial_softmax", resnet.POOLS, doc="what makes a vector of its maps"),
        "keypoints": Key(32, ABOVE_0, doc="maps of the spatial softmax"),
        "features": Key(64, ABOVE_0, doc="size of a camera's features"),
        "shared": Key(False, doc="one encoder for all cameras"),
        "norm": Key("group", resnet.NORMS, doc="frozen: the constants of a trained BatchNorm"),
        "weights": Key("", doc="torchvision's ResNet, .safetensors or .npz; \"\": from scratch"),
        "lr": Key(1.0, AT_LEAST_0, "optim.lr", "learning rate of the encoders; 0: frozen"),
    },
    # How columns become numbers near [-1, 1], in which the network learns.
    "normalize": {
        "action": Key("limits", MODES, doc="how actions are scaled (dpjax/core/normalizer.py)"),
        "obs": Key("limits", MODES, doc="how observations other than images are scaled"),
        "per_key": Key({}, doc="{observation or action: mode}, in place of the two above"),
        "image": Key("unit", tuple(normalizer.IMAGE_MODES), doc="[-1, 1], or ImageNet's moments"),
        "quantile": Key(0.01, below(0.5), doc='share that "quantile" leaves out at each end'),
        "min_range": Key(1e-4, AT_LEAST_0, "data", "dims that move less get scale 1 (paper)"),
    },
    # The network. These are the U-Net's fields; another network has its own (dpjax/nets).
    "denoiser": {
        "name": Key("unet1d", tuple(DENOISERS), doc="the network; the keys below are its fields"),
        "widths": Key((256, 512, 1024), unit="channels", doc="of the U-Net's levels"),
        "kernel_size": Key(5, unit="steps", doc="of its convolutions; odd"),
        "groups": Key(8, doc="of its GroupNorms"),
        "time_features": Key(256, doc="size of the embedding of the noise level"),
        "film_scale": Key(True, doc="features give scale and bias of a block, not only a bias"),
    },
    # The training method, and what is only for MeanFlow.
    "method": Key("diffusion", METHODS, doc="meanflow: 1 to 4 steps (Geng et al. 2025)"),
    "meanflow": {
        "share": Key(0.25, up_to(1), doc="of examples with an interval, not a moment (table 1a)"),
        "power": Key(1.0, AT_LEAST_0, doc="of the adaptive weight: 0 none (their table 1e)"),
    },
    # How the features of the observations enter the network.
    "condition": Key(
        "features",
        tuple(CONDITIONINGS),
        doc="features: of all steps; local: step by step (unet1d); inpaint: denoised with actions",
    ),
    # The noise levels of training.
    "schedule": {
        "name": Key("cosine", tuple(SCHEDULES), doc="flow: straight lines (Liu et al. 2023)"),
        "num_levels": Key(100, ABOVE_0, "levels", "K; of a flow the scale of time (MeanFlow: 1)"),
    },
    # What the network learns to output.
    "predict": Key(
        "epsilon", tuple(PREDICTION_TYPES), doc="prediction type; a flow's is velocity"
    ),
    # How noise becomes actions. All of it may change without training again.
    "sampler": {
        "name": Key(
            "ddpm",
            tuple(SAMPLERS),
            doc="euler: ddim on a flow; dpm_solver: ++2M (Lu et al. 2022); heun: Karras et al. "
            "2022, algorithm 1, with 2 S - 1 evaluations",
        ),
        "num_steps": Key(100, ABOVE_0, "steps", "S, of the sampling loop"),
        "spacing": Key(
            "auto", ("auto", *SPACINGS), doc="auto: leading if S divides K; trailing for heun"
        ),
        "eta": Key(0.0, up_to(1), doc="of ddim: 0 deterministic, 1 with the noise of ddpm"),
        "clip": Key(
            1.0, ABOVE_0._replace(infinite=True), "network", "bound of the predicted x_0"
        ),
        "diffusers": Key(
            "current", diffusers_0_11.VERSIONS, doc="0.11: its ddpm and ddim, for old weights"
        ),
        "warm_start": Key(
            0.0, below(1), doc="share of steps skipped, from the last chunk (Janner et al. 2022)"
        ),
        "unroll": Key(1, ABOVE_0, "steps", "in one turn of the compiled loop"),
    },
    # The squared error of the prediction.
    "loss": {"mask_padding": Key(False, doc="leave padded steps out (the paper counts them)")},
    # AdamW, and its learning rate over the training.
    "optim": {
        "lr": Key(1e-4, ABOVE_0, doc="learning rate of AdamW after the warm-up"),
        "b1": Key(0.95, below(1), doc="decay of the mean of gradients"),
        "b2": Key(0.999, below(1), doc="decay of the mean of their squares"),
        "eps": Key(1e-8, ABOVE_0, doc="added to their root"),
        "weight_decay": Key(1e-6, AT_LEAST_0, doc="decoupled from the gradient"),
        "decay": Key("all", ("all", "matrices"), doc="matrices: not biases, norms, positions"),
        "warmup": Key(500, AT_LEAST_0, "steps", "from 0 to lr; then a cosine to 0"),
        "grad_clip": Key(10.0, AT_LEAST_0, doc="of the global norm (LeRobot's value); 0: none"),
    },
    # The average of the weights over steps, which is what acts in the end.
    "ema": {
        "power": Key(0.75, AT_LEAST_0, doc="of the average of weights: 1 - (1 + step)^-power"),
        "max": Key(0.9999, up_to(1), doc="the largest decay of the average (paper's code)"),
    },
    # How long, in which batches, on which devices, from which weights.
    "train": {
        "steps": Key(450_000, ABOVE_0, "steps", "of the optimizer (paper: 4,500 epochs)"),
        "batch": Key(256, ABOVE_0, "examples", "in the global batch"),
        "steps_per_call": Key(1, ABOVE_0, "steps", "in a compiled call; about 2 s at most"),
        "parallel": Key("pmap", tuple(parallel.STRATEGIES), doc="how devices share a batch"),
        "seeds": Key(1, ABOVE_0, "runs", "side by side, of seed, seed + 1, …"),
        "accumulate": Key(1, ABOVE_0, doc="parts that a batch is computed in: less memory"),
        "init_from": Key("", doc="a run folder whose averaged weights are the start"),
    },
    # Arithmetic and memory of the networks; nothing that changes what is learned.
    "compute": {
        "dtype": Key("float32", tuple(DTYPES), doc="of the networks' arithmetic only"),
        "remat": Key(False, doc="compute blocks again for the gradient: slower, less memory"),
        "kernels": Key("auto", KERNELS, doc="xla: none of dpjax/ops' fast forms"),
    },
    # Cadences are rounded up to the end of a call of train.steps_per_call steps; 0 is never.
    "log": {"every": Key(50, AT_LEAST_0, "steps", "between lines of metrics.jsonl")},
    # Validation on held-out demonstrations.
    "val": {
        "every": Key(1000, AT_LEAST_0, "steps", "between validations on held-out windows"),
        "windows": Key(128, ABOVE_0, "windows", "evenly spread over the held-out episodes"),
        "samples": Key(4, ABOVE_0, "chunks", "sampled per window: best and mean error"),
        "num_steps": Key(10, ABOVE_0, "steps", "S of these samples; 100 take very long"),
    },
    # Rollouts in the task's simulator.
    "eval": {
        "every": Key(10_000, AT_LEAST_0, "steps", "between rollouts in the simulator"),
        "episodes": Key(50, ABOVE_0, "episodes", "on the seeds for selection, never the official"),
        "num_envs": Key(50, ABOVE_0, "episodes", "at once, in one batch of the policy"),
        "num_steps": Key(10, ABOVE_0, "steps", "S in training; final numbers: sampler.num_steps"),
    },
    # Checkpoints, and how many of them stay.
    "save": {
        "every": Key(5_000, AT_LEAST_0, "steps", "between checkpoints"),
        "keep_best": Key(3, AT_LEAST_0, "checkpoints", "by score; the last one is always kept"),
    },
}  # fmt: skip

# Open sections: their keys are the user's own, and new ones may be set on the command line.
OPEN_TEXTS = ("data.columns", "data.goals", "representation.layouts", "normalize.per_key")
# Those, and sections with other keys than the table's: another network's, or the cameras'.
OPEN = (*OPEN_TEXTS, "denoiser", "cameras")


def get_config() -> ConfigDict:
    """A config with every key at its default: the paper's U-Net, from low-dim observations.

    `data.dir` is empty: the user's data set goes there.
    """
    return ConfigDict(keys.defaults(KEYS))
