"""Errors of the library, told in the names of config keys.

Below `dpjax/config` an error names the argument that is wrong ("num_steps=500 must be …"). Whoever
wrote a config has never seen that argument: `names_keys` tells him the key that it came from.
"""

from collections.abc import Iterator
import contextlib
import re

from dpjax.core.errors import UserError

# Argument of a function below dpjax/config -> the config key that it comes from. An argument with
# dots ("layouts.pose") takes the key of what is before the first dot.
ARGUMENTS = {
    "task": "task",
    # The data.
    "directory": "data.dir",
    "split": "data.split",
    "on_bad": "data.on_bad",
    "weights": "data.weights",
    "val_fraction": "data.val_fraction",
    "modes": "normalize.per_key",
    "quantile": "normalize.quantile",
    "min_range": "normalize.min_range",
    "layouts": "representation.layouts",
    "relative": "representation.relative",
    # Steps of a chunk.
    "observed": "horizon.obs",
    "horizon": "horizon.predict",
    "executed": "horizon.act",
    # The networks.
    "widths": "denoiser.widths",
    "kernel_size": "denoiser.kernel_size",
    "groups": "denoiser.groups",
    "time_features": "denoiser.time_features",
    "width": "denoiser.width",
    "heads": "denoiser.heads",
    "kernels": "compute.kernels",
    # Diffusion.
    "num_levels": "schedule.num_levels",
    "prediction_type": "predict",
    "num_steps": "sampler.num_steps",
    "spacing": "sampler.spacing",
    "diffusers": "sampler.diffusers",
    "eta": "sampler.eta",
    "clip": "sampler.clip",
    "warm_start": "sampler.warm_start",
    "unroll": "sampler.unroll",
    # Training.
    "batch_size": "train.batch",
    "accumulate": "train.accumulate",
    "lr": "optim.lr",
    "distributed": "distributed",
    "num_envs": "eval.num_envs",
    "seeds": "eval.episodes",
}


@contextlib.contextmanager
def names_keys(**arguments: str) -> Iterator[None]:
    """A context, or decorator, in which a UserError about an argument names its config key.

    arguments: {argument: config key}, where that is another one than in ARGUMENTS.
    """
    try:
        yield
    except UserError as error:
        # The caller knows best what its arguments come from.
        table = {**ARGUMENTS, **arguments}
        key = _key(error.argument, table) if error.argument else None
        if key is None:  # about something else, or told in names of keys already
            raise
        raise UserError(with_keys(str(error), error.argument, table)) from error


def with_keys(text: str, argument: str, table: dict[str, str]) -> str:
    """The text of an error about `argument`, in the names of config keys.

    Every "argument=" becomes "config.<key>=", and so does the argument that the text starts with
    ("widths is empty"). The key is added at the end if it is not there yet.
    """
    key = _key(argument, table)
    text = re.sub(rf"^{re.escape(argument)}(?=[ :])", f"config.{key}", text)
    # Longer names first: "warm_start" must not be found as "start".
    names = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    assigned = re.compile(rf"(?<![\w.])({names})((?:\.\w+)*)=")
    text = assigned.sub(lambda match: f"config.{_key(match[1] + match[2], table)}=", text)
    # The key itself, not one that begins like it.
    if re.search(rf"config\.{re.escape(key)}(?!\.?\w)", text):
        return text
    return f"{text.rstrip('.')} (config.{key})."


def _key(argument: str, table: dict[str, str]) -> str | None:
    """The config key of an argument, dots after it kept; None for one that no key sets."""
    name, dot, rest = argument.partition(".")
    return table[name] + dot + rest if name in table else None
