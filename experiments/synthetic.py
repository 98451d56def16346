"""Training data of noise, for benchmarks: the cost of a step does not depend on the numbers."""

from ml_collections import ConfigDict
import numpy as np

from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION
from dpjax.data import loader
from dpjax.data.frames import Store

STEPS = 1000  # of data, and as many windows


def windows(config: ConfigDict, spec: Spec) -> loader.Windows:
    """Windows over random numbers, in network units, and over random pixels."""
    rng = np.random.default_rng(0)
    sizes = {**spec.numbers, ACTION: spec.action}
    columns = {key: rng.normal(size=(STEPS, n)).astype(np.float32) for key, n in sizes.items()}
    for key, size in spec.cameras.items():
        store = Store(limit=2**32)
        store.append(rng.integers(0, 256, (STEPS, *size), np.uint8))
        columns[key] = store.frames()
    # A window starts at each step; the last ones repeat the last step. [W, Tp]
    offsets = np.arange(config.horizon.predict)
    indices = np.minimum(np.arange(STEPS)[:, None] + offsets, STEPS - 1)
    keys = tuple(spec.observations)
    mask = np.ones(indices.shape)
    return loader.place(columns, indices, mask, keys, ACTION, config.horizon.obs)


def normalizer(spec: Spec) -> Normalizer:
    """Leaves numbers as they are, and maps pixels to [-1, 1]."""
    sizes = {**spec.numbers, ACTION: spec.action}
    offset = {key: np.zeros(n, np.float32) for key, n in sizes.items()}
    scale = {key: np.ones(n, np.float32) for key, n in sizes.items()}
    pixels = {key: np.full(3, 127.5, np.float32) for key in spec.cameras}
    return Normalizer(offset={**offset, **pixels}, scale={**scale, **pixels})
