"""The wheel, installed into an empty environment, beside a project with its own `configs`."""

import os
from pathlib import Path
import re
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = """
from dpjax.config import recipes

def get_config():
    config = recipes.load("pusht_demo")
    config.denoiser.widths = (16, 32)
    config.denoiser.time_features = 16
    config.train.update(steps=4, batch=16, steps_per_call=2)
    config.optim.warmup = 1
    config.log.every = 2
    config.val.update(every=0)
    config.eval.update(every=0)
    config.save.update(every=4)
    return config
"""


def run(command, folder):
    """A command in the project's folder, without the checkout on any path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=kept, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", out, ROOT], out)
    assert list(out.glob("*.tar.gz"))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def project(wheel, tmp_path_factory):
    """(folder with a package `configs` of its own, python of an environment with the wheel)."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").mkdir()
    (folder / "configs" / "__init__.py").write_text("raise RuntimeError('not dpjax')\n")
    (folder / "tiny.py").write_text(TINY)
    run([sys.executable, "-m", "venv", folder / "env"], folder)
    python = folder / "env" / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", f"{wheel}"], folder)
    return folder, python


def test_the_wheel_holds_dpjax_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dpjax"}
    for name in (
        "dpjax/py.typed",
        "dpjax/recipes/pusht_demo.py",
        "dpjax/demonstrations/pusht/1.0.0/dataset_info.json",
        "dpjax/runs/policies/pusht_demo/params.safetensors",
    ):
        assert name in names
    assert wheel.stat().st_size < 8e6


def test_without_extras_a_policy_acts_and_missing_ones_are_one_line(project):
    folder, python = project
    program = (
        "import dpjax, jax, numpy as np; run = dpjax.load('pusht_demo'); "
        "obs = {key: np.full((1, 2, n), 256.0) for key, n in run.spec.numbers.items()}; "
        "print(run.sample_actions(jax.random.key(0), obs).shape)"
    )
    assert run([python, "-c", program], folder) == "(1, 16, 2)\n"
    for command, extra in ((["train", "--workdir", "w"], "data"), (["check"], "data")):
        done = subprocess.run(
            [python, "-m", f"dpjax.{command[0]}", "--config", "pusht_demo", *command[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done.stderr
        assert f"pip install 'dpjax[{extra}]'" in done.stderr.splitlines()[-1]


def test_a_training_a_validation_and_the_readmes_lines(project, wheel):
    folder, python = project
    run([python, "-m", "pip", "install", "-q", f"{wheel}[data,report,sim]"], folder)
    run([folder / "env/bin/dpjax", "train", "--config", "tiny.py", "--workdir", "runs/a"], folder)
    run([python, "-m", "dpjax.validate", "--run", "runs/a", "--windows", "8"], folder)
    assert "runs/a" in run(
        [python, "-c", "import dpjax; dpjax.load('runs/a'); print('runs/a')"], folder
    )
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert re.match(r"coverage 0\.\d\d after \d+ steps", run([python, "-c", blocks[0]], folder))
    # An installed dpjax is of no commit, whatever repository it is used in.
    program = "from dpjax.evaluation import provenance; print(provenance.commit())"
    assert not re.match(r"[0-9a-f]{12}", run([python, "-c", program], folder))
