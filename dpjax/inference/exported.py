"""Loads a policy that `dpjax.export` wrote, without the code of its networks.

    sample_actions = dpjax.load_exported("policy.stablehlo")
    about = sample_actions.about
    controller = Controller(
        sample_actions, observed=about["observed"], executed=about["executed"]
    )

This file imports jax and numpy, but no network and no config.
"""

from collections.abc import Iterable, Mapping
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.compiled import CompiledPolicy
from dpjax.inference.trained_range import FarObservations, Range

KEY_WORDS = 2  # uint32 words per key of jax's default generator, threefry2x32


class Exported:
    """An exported policy: `(rng, obs, previous=None, committed=None) -> actions` in data units.

    about: the content of the JSON file beside the program: the names, shapes and dtypes of its
        inputs, the horizons, and versions.
    """

    def __init__(self, program: jax.export.Exported, about: dict[str, Any]):
        self.about = about
        inputs = about["inputs"]

        # In place of typed keys the exported program takes their uint32 words, [B, KEY_WORDS].
        # Files of older versions have neither `previous` nor `committed`.
        def sample(params: tuple, keys: jax.Array, obs: dict, *optional: jax.Array) -> jax.Array:
            del params  # the program contains them
            return program.call(jax.random.key_data(keys), obs, *optional)

        # The first axis of each input is the batch. `CompiledPolicy` takes the shapes without it.
        obs_shapes = {
            name: jax.ShapeDtypeStruct(tuple(entry["shape"][1:]), entry["dtype"])
            for name, entry in inputs["obs"].items()
        }
        previous_shape = tuple(inputs["previous"]["shape"][1:]) if "previous" in inputs else None
        # A program that was exported for one batch size only runs at that size.
        self._compiled = CompiledPolicy(
            sample,
            obs_shapes,
            previous_shape,
            about["batch"],
            _ranges(about),
            takes_committed="committed" in inputs,
        )

    def __call__(
        self,
        rng: jax.Array,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da], see `CompiledPolicy.__call__`."""
        return self._compiled((), rng, obs, previous, committed)  # (): no params

    @property
    def far(self) -> FarObservations:
        """Counts of observations far outside of the training data."""
        return self._compiled.far

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> float:
        """Compiles for these batch sizes ahead of the first call. Returns the seconds it took."""
        return self._compiled.compile((), batch_sizes)


def _ranges(about: dict[str, Any]) -> dict[str, Range]:
    """The ranges of observations that the JSON holds; {} for exports of older versions."""
    # null stands for infinity, which JSON lacks.
    limit = lambda values, infinite: np.array(
        [infinite if x is None else x for x in values], np.float32
    )
    return {
        name: Range(limit(low, -np.inf), limit(high, np.inf))
        for name, (low, high) in about.get("trained_ranges", {}).items()
    }


def load(path: str | Path) -> Exported:
    """Loads a policy from a .stablehlo file that `dpjax.export` wrote, or from its folder.

    Raises UserError if the file or the JSON beside it is missing or damaged, if the program is
    for another platform, or if this version of jax cannot read it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "policy.stablehlo"
    data, about = _read(path)

    # 1. The platform. `jax.default_backend` says "gpu" for CUDA and for ROCm; an export names
    # one of the two.
    library = {"cuda": "gpu", "rocm": "gpu"}
    platforms = [library.get(name, name) for name in about["platforms"]]
    if jax.default_backend() not in platforms:
        raise UserError(
            f"{path} is for {', '.join(about['platforms'])}, but this machine runs on "
            f"{jax.default_backend()}: export it again with --platforms."
        )
    # 2. The program. jax reads exports of older versions, but not always those of newer ones.
    try:
        return Exported(jax.export.deserialize(bytearray(data)), about)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading it needs {error.name}: pip install it.") from None
    except (ValueError, KeyError) as error:  # for example, a jax older than the file
        raise UserError(f"{path}: jax {jax.__version__} cannot read it ({error}).") from None


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Reads the program and the JSON beside it, and checks that they belong together."""
    # 1. Both files.
    try:
        data = path.read_bytes()
        text = path.with_suffix(".json").read_text()
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; an exported policy is a .stablehlo file and a "
            ".json file beside it, made by python -m dpjax.export."
        ) from None
    # 2. The JSON.
    try:
        about = json.loads(text)
        digest = about["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{path.with_suffix('.json')}: not a file that dpjax.export wrote."
        ) from None
    # 3. The JSON describes the inputs of one program. With another program the call would fail, or
    # give wrong actions.
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path}: damaged, or of another export than the .json beside it.")
    return data, about
