"""Turns errors that name a function's argument into errors that name a config key.

Below `dpjax/config` an error names the wrong argument ("num_steps=500 must be …"). The author of a
config does not know that argument, so `names_keys` replaces it by the key that its value came from.
"""

from collections.abc import Iterator
import contextlib
import re

from dpjax.core.errors import UserError

# {argument of a function below dpjax/config: the config key that its value comes from}. For an
# argument with dots ("layouts.pose") the part before the first dot is looked up.
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
    "agree": "sampler.agree",
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
    """A context or decorator: a UserError about an argument leaves it naming a config key.

    arguments: {argument: config key}, which replace or extend ARGUMENTS.
    """
    try:
        yield
    except UserError as error:
        # The caller's names come last, so that they replace those of the table.
        table = {**ARGUMENTS, **arguments}
        key = _key(error.argument, table) if error.argument else None
        # An error that is not about an argument, or that names a key already, passes unchanged.
        if key is None:
            raise
        raise UserError(with_keys(str(error), error.argument, table)) from error


def with_keys(text: str, argument: str, table: dict[str, str]) -> str:
    """The text of an error about `argument`, with config keys in place of arguments.

    Every "argument=" becomes "config.<key>=". An argument that starts the text ("widths is empty")
    is replaced, too. If the text still lacks the key, it is added at the end.
    """
    # 1. The argument at the start of the text, which may stand without "=".
    key = _key(argument, table)
    text = re.sub(rf"^{re.escape(argument)}(?=[ :])", f"config.{key}", text)
    # 2. Every "argument=". Longer names come first in the pattern: it takes the first that matches.
    # Nothing that continues a word or a dotted name, such as "sampler.eta=", is an argument.
    names = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    assigned = re.compile(rf"(?<![\w.])({names})((?:\.\w+)*)=")
    text = assigned.sub(lambda match: f"config.{_key(match[1] + match[2], table)}=", text)
    # 3. The key, if the text lacks it. "config.predict" must not match "config.predict_more".
    if re.search(rf"config\.{re.escape(key)}(?!\.?\w)", text):
        return text
    return f"{text.rstrip('.')} (config.{key})."


def _key(argument: str, table: dict[str, str]) -> str | None:
    """The config key of an argument; None if no key sets it."""
    # What follows the first dot is kept: "layouts.pose" -> "representation.layouts.pose".
    name, dot, rest = argument.partition(".")
    return table[name] + dot + rest if name in table else None
