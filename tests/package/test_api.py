"""The public API: what `import dpjax` gives, and what it costs."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import dpjax
from dpjax.runs import shipped

# Parts of extras: whoever loads a policy need not have them.
HEAVY = ["matplotlib", "av", "h5py", "pyarrow", "tensorflow_datasets", "tensorboardX", "PIL"]

IMPORTS = f"""
import json, sys, time
import jax
start = time.perf_counter()
import dpjax
seconds = time.perf_counter() - start
dpjax.load("pusht_demo")
print(json.dumps([seconds, sorted(set({HEAVY}) & set(sys.modules))]))
"""


def test_every_public_name_is_there():
    assert len(dpjax.__all__) == len(set(dpjax.__all__)) >= 38
    for name in dpjax.__all__:
        assert getattr(dpjax, name) is not None
    assert set(dpjax.__all__) <= set(dir(dpjax))


def test_the_names_are_documented():
    for name in dpjax.__all__:
        assert name == "__version__" or getattr(dpjax, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'dpjax' has no attribute 'nothing'"):
        dpjax.nothing  # noqa: B018


def test_importing_is_quick_and_loading_needs_no_extra():
    result = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    seconds, heavy = json.loads(result.stdout)
    assert seconds < 1 and not heavy


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_policy_acts(name):
    run = dpjax.load(name)
    run.warm_up([1])
    controller = run.controller(jax.random.key(0))
    obs = {key: np.full(size, 256.0) for key, size in run.spec.numbers.items()}
    action = controller.act(obs)
    assert action.shape == (run.spec.action,) and np.isfinite(action).all()


def test_the_demos_policy_ships():
    assert "pusht_demo" in shipped.names()


def test_a_policy_comes_back_from_half_precision(tmp_path):
    """Weights to half precision's 11 bits, units exactly, and an encoder without weights."""
    run = dpjax.load("pusht_demo")
    shipped.save_params(tmp_path, run.params, 7)
    params, step = shipped.load_params(tmp_path)
    assert step == 7 and params["encoder"] == {}
    # Float16 of float16: the second round trip loses nothing.
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(run.params))
    wide = {**run.params, "denoiser": {"kernel": np.float32([1e6])}}
    with pytest.raises(ValueError, match="too large for half precision"):
        shipped.save_params(tmp_path, wide, 7)


def test_the_command_dpjax_names_its_commands():
    def dpjax_command(*args):
        command = [sys.executable, "-m", "dpjax", *args]
        return subprocess.run(command, capture_output=True, text=True)

    text = dpjax_command("--help").stdout
    assert "convert" in text and "train" in text
    assert dpjax_command("--version").stdout == f"dpjax {dpjax.__version__}\n"
    wrong = dpjax_command("trian")
    assert wrong.returncode == 2 and "did you mean 'train'?" in wrong.stderr
    assert "usage: dpjax evaluate" in dpjax_command("evaluate", "--help").stdout.replace(
        "python -m dpjax.evaluate", "dpjax evaluate"
    )
