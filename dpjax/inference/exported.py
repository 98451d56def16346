"""A policy from the file that `dpjax.export` wrote, without the code of its networks.

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

KEY_WORDS = 2  # uint32 words per key, of jax's default generator (threefry2x32)


class Exported:
    """An exported policy: `(rng, obs, previous=None) -> actions [B, Tp, Da]` in data units.

    about: the content of the JSON file beside the program: names, shapes and dtypes of its
        inputs, the horizons, versions.
    """

    def __init__(self, program: jax.export.Exported, about: dict[str, Any]):
        self.about = about
        inputs = about["inputs"]

        # Exported programs take the uint32 words of the keys in place of key arrays.
        def sample(params: tuple, keys: jax.Array, obs: dict, *previous: jax.Array) -> jax.Array:
            del params  # the program contains them
            return program.call(jax.random.key_data(keys), obs, *previous)

        # The first axis of each input is the batch.
        obs_shapes = {
            name: jax.ShapeDtypeStruct(tuple(entry["shape"][1:]), entry["dtype"])
            for name, entry in inputs["obs"].items()
        }
        previous_shape = tuple(inputs["previous"]["shape"][1:]) if "previous" in inputs else None
        self._compiled = CompiledPolicy(sample, obs_shapes, previous_shape, about["batch"])

    def __call__(
        self,
        rng: jax.Array,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da], see `CompiledPolicy.__call__`."""
        return self._compiled((), rng, obs, previous)

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> float:
        """Compiles for these batch sizes, before a robot waits; returns the seconds it took."""
        return self._compiled.compile((), batch_sizes)


def load(path: str | Path) -> Exported:
    """The policy in a .stablehlo file that `dpjax.export` wrote, or in the folder of one.

    Raises UserError if the file or the JSON beside it is missing, damaged, for another platform,
    or of a version that this jax cannot read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "policy.stablehlo"
    data, about = _read(path)

    # jax names every GPU "gpu"; an export names the library.
    library = {"cuda": "gpu", "rocm": "gpu"}
    platforms = [library.get(name, name) for name in about["platforms"]]
    if jax.default_backend() not in platforms:
        raise UserError(
            f"{path} is for {', '.join(about['platforms'])}, but this machine runs on "
            f"{jax.default_backend()}: export it again with --platforms."
        )
    try:
        return Exported(jax.export.deserialize(bytearray(data)), about)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading it needs {error.name}: pip install it.") from None
    except (ValueError, KeyError) as error:  # for example, a jax older than the file
        raise UserError(f"{path}: jax {jax.__version__} cannot read it ({error}).") from None


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The program's bytes and the JSON beside it, which must belong together."""
    try:
        data = path.read_bytes()
        text = path.with_suffix(".json").read_text()
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; an exported policy is a .stablehlo file and a "
            ".json file beside it, made by python -m dpjax.export."
        ) from None
    try:
        about = json.loads(text)
        digest = about["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{path.with_suffix('.json')}: not a file that dpjax.export wrote."
        ) from None
    # The JSON describes one program only; a mixed-up pair would fail later, or act wrongly.
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path}: damaged, or of another export than the .json beside it.")
    return data, about
