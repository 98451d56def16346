"""A wrong config is one line: what was given, what is allowed; and nothing is compiled."""

import functools
import math
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest
from support import tiny, tiny_config, tiny_image

from dpjax import tasks
from dpjax.config import build, checks, dataset, recipes
from dpjax.core import spec
from dpjax.core.errors import UserError
from dpjax.runs import steps

ROOT = Path(__file__).parents[2]


def changed(key, value, module=tiny_config):
    """The tiny config with one key set, as a file of configs/ would set it."""
    config = module.get_config()
    with config.unlocked():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        if name in section:
            del section[name]  # ml_collections would check the type
        section[name] = value
    return config


CONFIGS = {name: functools.partial(recipes.load, name) for name in recipes.names()}
CONFIGS |= {"tiny": tiny_config.get_config, "tiny_image": tiny_image.get_config}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recipes_are_good(name):
    checks.check(CONFIGS[name]())


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("optim.lrr", 1.0, "config.optim.lrr is unknown; did you mean 'lr'?"),
        ("learning_rate", 1.0, "config.learning_rate is unknown"),
        ("horizon", {"obs": 2, "predict": 8}, "config.horizon.act is missing"),
        ("denoiser", {"name": "unet1d"}, "config.denoiser.widths is missing"),
        ("denoiser", {"name": "unet"}, "did you mean 'unet1d'?"),
        ("train", 3, "config.train=3 must be a section"),
        ("train.batch", True, "config.train.batch=True must be a whole number"),
        ("train.batch", "abc", "config.train.batch='abc' must be a whole number, such as 256"),
        ("train.batch", 8.0, "config.train.batch=8.0 must be a whole number"),
        ("train.batch", 0, "config.train.batch=0 must be above 0"),
        ("train.steps", -5, "config.train.steps=-5 must be above 0"),
        ("optim.lr", math.nan, "config.optim.lr=nan must be finite and above 0"),
        ("optim.lr", math.inf, "config.optim.lr=inf must be finite and above 0"),
        ("optim.lr", -1e-4, "config.optim.lr=-0.0001 must be above 0"),
        ("optim.lr", False, "config.optim.lr=False must be a number"),
        ("optim.b1", 1.0, r"config.optim.b1=1.0 must be in [0, 1)"),
        ("optim.grad_clip", math.nan, "config.optim.grad_clip=nan must be finite"),
        ("optim.warmup", 60, "must be below config.train.steps=60"),
        ("ema.max", 1.5, "config.ema.max=1.5 must be in [0, 1]"),
        ("seed", -1, r"config.seed=-1 must be in [0, 4294967296)"),
        ("save.every", -1, "config.save.every=-1 must be 0 or more"),
        ("data.val_fraction", 1.0, r"config.data.val_fraction=1.0 must be in [0, 1)"),
        ("data.on_bad", "ignore", "choose one of refuse, skip"),
        ("data.columns", {"state": "observation/state"}, "config.data.columns has no 'action'"),
        ("data.columns", {"action": "action"}, "config.data.columns lacks 'state'"),
        ("loss.mask_padding", 1, "config.loss.mask_padding=1 must be True or False"),
        ("denoiser.widths", (8, "x"), "must be a tuple, each element a whole number"),
        ("denoiser.widths", (), "config.denoiser.widths is empty"),
        ("denoiser.widths", (16, 20), "config.denoiser.widths has 20"),
        ("horizon.predict", 7, "config.horizon.predict=7 cannot be halved 1 times"),
        ("horizon.act", 8, "Raise horizon.predict or lower horizon.act"),
        ("horizon.obs", 6, "horizon.obs - 1 + horizon.act = 9 steps are needed"),
        ("normalize.action", "gaussian", "config.sampler.clip=inf"),
        ("normalize.obs", "limit", "did you mean 'limits'?"),
        ("schedule.name", "cosin", "did you mean 'cosine'?"),
        ("sampler.name", "ddmp", "did you mean 'ddpm'?"),
        ("sampler.num_steps", 21, "must be between 1 and the schedule's 20 levels"),
        ("sampler.spacing", "even", "config.sampler.spacing='even' is unknown"),
        ("predict", "noise", "config.predict='noise' is unknown"),
        ("task", "pushed", "did you mean 'pusht'?"),
        ("sampler.warm_start", 1.0, "config.sampler.warm_start=1.0 must be in [0, 1)"),
        ("sampler.agree", "lime", "config.sampler.agree='lime' is unknown; did you mean 'line'?"),
        ("sampler.agree_share", 0.0, "config.sampler.agree_share=0.0 must be in (0, 1]"),
        ("sampler.beta", 0.0, "config.sampler.beta=0.0 must be above 0"),
        ("method", "mean_flow", "config.method='mean_flow' is unknown; did you mean 'meanflow'?"),
        ("method", "meanflow", "config.schedule.name='cosine' does not go with"),
        ("meanflow.share", 1.5, "config.meanflow.share=1.5 must be in [0, 1]"),
        ("meanflow.power", -1.0, "config.meanflow.power=-1.0 must be 0 or more"),
        ("task", "metaworld/pusht", "did you mean 'push'?"),
    ],
)
def test_a_wrong_value_is_named(key, value, message):
    with pytest.raises(UserError) as error:
        checks.check(changed(key, value))
    assert message in str(error.value) and "\n" not in str(error.value)


def flow(predict="velocity"):
    config = changed("schedule.name", "flow")
    config.predict = predict
    return config


def test_a_flow_wants_a_prediction_that_pure_noise_allows():
    checks.check(flow())
    with pytest.raises(
        UserError, match="config.predict='epsilon' does not determine the data at level t=20"
    ):
        checks.check(flow("epsilon"))


def mean_flow(**changes):
    config = flow()
    config.update({"method": "meanflow", **changes})
    config.sampler.update(name="euler", num_steps=1)
    return config


def test_a_warm_start_needs_the_whole_of_the_last_plan():
    config = changed("sampler.warm_start", 0.5)
    checks.check(config)
    config.condition = "inpaint"
    with pytest.raises(UserError, match="warm_start=0.5 does not go with .*'inpaint'"):
        checks.check(config)


def test_meanflow_wants_a_flow_and_its_own_sampler():
    checks.check(mean_flow())
    with pytest.raises(UserError, match="config.predict='v' does not go with .*'meanflow'"):
        checks.check(mean_flow(predict="v"))
    # A step estimates no data, so there is no Jacobian to guide with.
    checks.check(build.with_sampling(mean_flow(), agree="blend"))
    with pytest.raises(UserError, match="sampler.agree='line' .* 'none' or 'blend'"):
        checks.check(build.with_sampling(mean_flow(), agree="line"))
    # As `--sampler heun` would have it, which is not checked with the config.
    asked = build.with_sampling(mean_flow(), sampler="heun")
    with pytest.raises(UserError, match="sampler.name='heun' .* 'euler' or 'ddim'"):
        build.policy(asked, None, spec.Spec({}, 1, ""))


@pytest.mark.parametrize("name", build.SAMPLERS)
def test_every_sampler_fits_the_tiny_config(name):
    checks.check(changed("sampler.name", name))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("layer", 2, "config.denoiser.layer is unknown to 'transformer'; did you mean 'layers'?"),
        ("heads", 3, "config.denoiser.width=256 must be an even multiple"),
        ("causal", 1, "config.denoiser.causal=1 must be True or False"),
        ("horizon", 8, "config.denoiser.horizon is unknown to 'transformer'"),
        ("condition", "local", "config.condition='local' needs config.denoiser.name='unet1d'"),
    ],
)
def test_a_wrong_key_of_another_denoiser_is_named(key, value, message):
    config = recipes.load("pusht_state_transformer")
    with config.unlocked():
        section = config if key == "condition" else config.denoiser
        if key in section:
            del section[key]  # ml_collections would check the type
        section[key] = value
    with pytest.raises(UserError) as error:
        checks.check(config)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_mirror_that_the_task_lacks(monkeypatch):
    task = tasks.get("pusht")._replace(mirror=None)
    monkeypatch.setattr(tasks, "get", lambda name: task)
    with pytest.raises(UserError, match="config.data.mirror=True: task 'pusht' has no mirror"):
        checks.check(changed("data.mirror", True))


def test_a_batch_that_the_devices_cannot_split():
    with pytest.raises(UserError) as error:
        steps.check_devices(batch=16, accumulate=1, num_devices=3)
    assert "config.train.batch=16 cannot be split over 3 devices" in str(error.value)
    assert "such as 15" in str(error.value)
    with pytest.raises(UserError, match="config.train.accumulate=3 does not divide"):
        steps.check_devices(batch=16, accumulate=3, num_devices=2)


def refused(tmp_path, args):
    """The one line of a start that is refused and leaves nothing behind."""
    run = tiny.Run(args, log=tmp_path / "log").wait()
    assert run.code == 2, run.text()
    lines = run.text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dpjax: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    return lines[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ("trian.steps=3", "--config.trian.steps: config has no 'trian'; did you mean 'train'?"),
        ("train.step=3", "config.train has no 'step'; did you mean 'steps'?"),
        ("seed.steps=3", "--config.seed.steps: config.seed is one value, not a section"),
        ("train.batch=abc", "--config.train.batch=abc must be a whole number, such as 16"),
        ("train.batch=True", "--config.train.batch=True must be a whole number"),
        ("train.batch=8.5", "--config.train.batch=8.5 must be a whole number"),
        ("optim.lr=[1]", "--config.optim.lr=[1] must be a number"),
        ("optim.lr=nan", "config.optim.lr=nan must be finite and above 0"),
        ("loss.mask_padding=maybe", "--config.loss.mask_padding=maybe must be True or False"),
        ("denoiser.widths=(8,", "widths"),
        ("horizon.predict=7", "cannot be halved"),
        ("data.dir=nowhere", "nowhere: no such directory"),
        ("data.dir=", "config.data.dir is empty"),
        ("representation.layouts.action=2 axis_angel", "did you mean 'axis_angle'?"),
        ("data.columns.extra=", "config.data.columns has no 'extra'"),
        ("data.goals.goal=state", "the simulator of task 'pusht' gives no goals"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path, change, message):
    args = [f"--config={tiny.CONFIG}", f"--workdir={tmp_path}/run", f"--config.{change}"]
    assert message in refused(tmp_path, args)


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "give --config (a recipe, or a config file) and --workdir"),
        ([f"--config={tiny.CONFIG}"], "give --config"),
        (["--config=configs/pusht_dem.py"], "did you mean 'configs/pusht_demo.py'?"),
        (["--config=pusht_dem"], "no such file or recipe; did you mean 'pusht_demo'?"),
        (["--config=there/pusht_demo.py"], "did you mean the recipe 'pusht_demo'?"),
        (["--workdri=x"], "workdri"),
        ([f"--config={tiny.CONFIG}", "config.train.steps=3"], "is not an option"),
        (["--config"], "config"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, args, message):
    assert message in refused(tmp_path, args)


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "has no get_config()"),
        ("def get_config():\n    return missing\n", "line 2: NameError"),
    ],
)
def test_a_broken_config_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    run = tiny.Run([f"--config={path}", "--workdir=x"], log=tmp_path / "log").wait()
    assert run.code == 2 and message in run.last_line and len(run.text().splitlines()) == 1


def test_a_misspelled_key_in_a_config_file_is_refused(tmp_path):
    text = tiny.CONFIG.read_text().replace("config.optim.lr = ", "config.optim.learning_rate = ")
    (tmp_path / "file.py").write_text(text)
    args = [f"--config={tmp_path}/file.py", f"--workdir={tmp_path}/run"]
    run = tiny.Run(args, log=tmp_path / "log").wait()
    assert run.code == 2 and "config.optim.learning_rate is unknown" in run.last_line
    assert not (tmp_path / "run").exists()


def test_help_lists_the_keys(tmp_path):
    run = tiny.Run([f"--config={tiny.CONFIG}", "--help"], log=tmp_path / "log").wait()
    assert run.code == 0
    for text in ("--workdir", "SIGTERM saves"):
        assert text in run.text()
    assert re.search(r"train\.batch +16 +above 0 +examples +in the global batch", run.text())
    assert re.search(r"optim\.lr +0\.002 ", run.text())


def command(*args):
    """`python -m dpjax.train`, a process from the start."""
    return subprocess.run(
        [sys.executable, "-m", "dpjax.train", *args],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_itself(tmp_path):
    done = command(
        "--config=configs/pusht_demo.py", "--config.train.bacth=3", f"--workdir={tmp_path}"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dpjax: error: --config.train.bacth: config.train has no 'bacth'")
    assert done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    done = command("--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr and "give --config" in done.stderr


@pytest.mark.parametrize("key, value, message", [
    ("cameras.image.crop", (100, 84), "crop=(100, 84) is larger than the image it is cut from"),
    ("cameras.image.size", (96,), "config.cameras.image.size=(96,) must be (height, width) in px."),
    ("cameras.image.resize", (1, 2, 3), "must be (height, width) in px, or () for none"),
    ("cameras.image.croop", (84, 84), "image.croop is unknown; did you mean 'crop'?"),
    ("encoder.pool", "max", "config.encoder.pool='max' is unknown; choose one of average, "),
    ("encoder.depth", 50, "config.encoder.depth=50 is unknown; choose one of 18, 34"),
    ("encoder.width", 20, "config.encoder.width=20 must be a multiple of 16"),
    ("encoder.weights", "r18.npz", "set config.encoder.width=64 (is 16)"),
    ("encoder.lr", -1.0, "config.encoder.lr=-1.0 must be 0 or more"),
    ("augment.hue", 0.7, "config.augment.hue=0.7 must be in [0, 0.5]"),
    ("normalize.image", "limits", "config.normalize.image='limits' is unknown"),
    ("condition", "inpaint", "which images can't be: use 'features'"),
])  # fmt: skip
def test_wrong_cameras_are_one_line(key, value, message):
    with pytest.raises(UserError) as caught:
        checks.check(changed(key, value, tiny_image))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, size, message", [
    ("image", (48, 96), "image: expected images of (48, 96) px, got (96, 96)"),
    ("state", (96, 96), "state: expected uint8 [H, W, 3], got float32 [5]: pixels are whole"),
    ("wrist", (96, 96), "config.cameras.wrist: no such column; choose one of action, image, state"),
])  # fmt: skip
def test_cameras_that_the_data_has_not_are_one_line(tmp_path, name, size, message):
    config = tiny_image.get_config()
    del config.cameras["image"]
    config.cameras[name] = dict(size=size)
    config.data.dir = str(tiny.write_images(tmp_path / "set"))
    with pytest.raises(UserError) as caught:
        dataset.read(config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_steps_are_asked_for_and_not_taken_for_the_configs():
    config = recipes.load("pusht_state_small")
    assert build.with_sampling(config).sampler.num_steps == config.sampler.num_steps
    with pytest.raises(UserError, match="num_steps=0"):
        build.policy(build.with_sampling(config, steps=0), None, spec.Spec({"agent_pos": 2}, 2, ""))
