"""Training states whose numbers are a function of the step, and runs that hold them."""

from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpjax.core.normalizer import Normalizer
from dpjax.training import checkpoint
from dpjax.training import state as states

CONFIG = {"seed": 3, "widths": [8, 16]}
TX = optax.adamw(1e-3)


def make(step, *, encoder=True, width=24):
    """The state of a step: any process computes the same one."""
    rng = np.random.default_rng(step)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    params = {
        "encoder": {"Dense_0": {"kernel": draw(5, 7)}, "a.b/c": draw(3)} if encoder else {},
        "denoiser": {
            "Conv_0": {"kernel": draw(3, 11, width), "bias": draw(width)},
            "half": jnp.asarray(draw(6), jnp.bfloat16),
            "nothing": draw(0, 3),
        },
        "normalizer": Normalizer({"obs/x.y": draw(4)}, {"obs/x.y": draw(4)}),
    }
    state = states.create(params, TX)
    opt_state = jax.tree.map(lambda x: np.asarray(x) + x.dtype.type(step), state.opt_state)
    ema = {**params, "denoiser": jax.tree.map(lambda x: x + x, params["denoiser"])}
    return state.replace(
        step=jnp.asarray(step, jnp.int32),
        ema=ema,
        ema_count=jnp.asarray(step + 5, jnp.int32),
        opt_state=opt_state,
    )


def write(run_dir, *steps, scores=None, keep_best=9):
    """Saves make(step) for each step."""
    checkpoints = checkpoint.Checkpoints(run_dir, keep_best=keep_best)
    for step in steps:
        checkpoints.save(make(step), config=CONFIG, score=(scores or {}).get(step))
    checkpoints.close()


def same(a, b):
    """Whether two trees are bit-equal, tree and dtypes included."""
    equal = lambda x, y: (
        np.asarray(x).dtype == np.asarray(y).dtype
        and np.shape(x) == np.shape(y)
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    )
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A run with the steps 1 and 2; copy it before breaking it."""
    run_dir = tmp_path_factory.mktemp("two")
    write(run_dir, 1, 2)
    return run_dir


@pytest.fixture
def run_dir(two_steps, tmp_path):
    """A copy of that run."""
    return Path(shutil.copytree(two_steps, tmp_path / "run"))


def files_of(run_dir, step):
    """Every file of a step, in an order that does not change."""
    return sorted(p for p in (run_dir / "checkpoints" / str(step)).rglob("*") if p.is_file())


def flip(path, rng):
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
