"""A policy out of the file that `dpjax.export` wrote, without its code.

    plan = exported.load("policy.stablehlo")
    controller = Controller(plan, observed=plan.about["observed"], executed=plan.about["executed"])

Imports jax and numpy, no network and no config.
"""

import hashlib
import json
from pathlib import Path

import jax
import jax.export
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.compiled import CompiledPolicy

KEY_WORDS = 2  # uint32 words of a row's key, jax's default (threefry2x32)


class Exported:
    """`plan(rng, obs, previous=None) -> actions [B, Tp, Da]` of an exported policy.

    about: what the JSON beside it says.
    """

    def __init__(self, program: jax.export.Exported, about: dict):
        self.about, inputs = about, about["inputs"]
        row = lambda given: jax.ShapeDtypeStruct(tuple(given["shape"][1:]), given["dtype"])

        def sample(params, keys, obs, *previous):
            del params  # they are in the program
            return program.call(jax.random.key_data(keys), obs, *previous)

        wants = {name: row(given) for name, given in inputs["obs"].items()}
        previous = tuple(inputs["previous"]["shape"][1:]) if "previous" in inputs else None
        self._act = CompiledPolicy(sample, wants, previous, about["batch"])

    def __call__(self, rng, obs, previous=None) -> np.ndarray:
        return self._act((), rng, obs, previous)

    def warm_up(self, batch_sizes=(1,)) -> float:
        """Compiles for these numbers of rows, before a robot waits; the seconds it took."""
        return self._act.compile((), batch_sizes)


def load(path) -> Exported:
    """The plan in a file that `dpjax.export` wrote, or in the folder of one."""
    path = Path(path)
    path = path / "policy.stablehlo" if path.is_dir() else path
    try:
        data, text = path.read_bytes(), path.with_suffix(".json").read_text()
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; an exported policy is a .stablehlo file and a "
            ".json beside it, made by python -m dpjax.export."
        ) from None
    try:
        about = json.loads(text)
        digest = about["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path.with_suffix('.json')}: not what dpjax.export wrote.") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path}: damaged, or of another export than the .json beside it.")
    platform, named = jax.default_backend(), {"cuda": "gpu", "rocm": "gpu"}
    if platform not in [named.get(name, name) for name in about["platforms"]]:
        raise UserError(
            f"{path} is for {', '.join(about['platforms'])}, this machine acts on {platform}: "
            "export it again with --platforms."
        )
    try:
        return Exported(jax.export.deserialize(bytearray(data)), about)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading it needs {error.name}: pip install it.") from None
    except (ValueError, KeyError) as error:  # e.g. by a jax that is older than the file
        raise UserError(f"{path}: jax {jax.__version__} can't read it ({error}).") from None
