"""import_weights as a command: a file of torch's own, options, and what is refused."""

import importlib.util
import re

import numpy as np
import pytest
from support import checkpoints

from dpjax import import_weights
from dpjax.core.errors import UserError
from dpjax.interop import networks, weight_map
from dpjax.runs import config_file
from dpjax.training import checkpoint

MAKER = checkpoints.GOLDEN / "make_checkpoint.py"


def drawn():
    """The numbers of original_small.ckpt, by the script that made it."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", MAKER)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.state(0)


def run_of(tmp_path, *options, source=checkpoints.GOLDEN / "original_small.ckpt"):
    """(config, spec, params) of the run that the command makes."""
    import_weights.main([str(source), "--run", str(tmp_path / "run"), *options])
    config, spec = config_file.read_config(tmp_path / "run")
    return config, spec, checkpoint.load_params(tmp_path / "run")[0]


def test_a_file_that_torch_saved_with_dill_is_read_to_the_last_number(tmp_path, capsys):
    config, spec, params = run_of(tmp_path)
    state = {k: x for k, x in drawn().items() if k.startswith("model.")}
    leaves = weight_map.flatten(params["denoiser"])
    ours = {path: leaf.shape for path, leaf in leaves.items()}
    back = weight_map.take_apart(networks.unet(ours, prefix="model."), leaves)
    assert back.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(back[name], state[name], err_msg=name)
    assert (config.horizon.obs, config.horizon.predict, config.horizon.act) == (2, 4, 2)
    assert config.denoiser.widths == (8, 16) and config.predict == "epsilon"
    assert spec.observations == {"state": 3} and spec.action == 2
    said = capsys.readouterr().err
    assert "6 names in the pickle were read as data and not called: omegaconf" in said
    assert "9 tensors are no weights and are left out" in said


def test_where_it_came_from_lies_in_the_checkpoint(tmp_path):
    run_of(tmp_path)
    meta = checkpoint.read_meta(tmp_path / "run", 0)
    assert meta["imported"]["source"] == "original_small.ckpt"
    assert re.fullmatch("[0-9a-f]{64}", meta["imported"]["sha256"])


def test_options_name_observations_and_say_what_the_file_does_not(tmp_path):
    options = ["--observations", "arm=2,hand=1", "--set", "sampler.name=ddim"]
    options += ["--set", "sampler.num_steps=10", "--set", "horizon.act=3"]
    config, spec, params = run_of(tmp_path, *options)
    assert spec.observations == {"arm": 2, "hand": 1}
    assert (config.sampler.name, config.sampler.num_steps, config.horizon.act) == ("ddim", 10, 3)
    assert params["normalizer"].scale["arm"].shape == (2,)
    with pytest.raises(UserError, match="add up to the 3 numbers that"):
        run_of(tmp_path / "b", "--observations", "arm=2")


def test_what_the_config_does_not_say_is_asked_for_once_for_all(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")
    del cfg["horizon"], cfg["n_action_steps"], cfg["policy"]["model"]["down_dims"]
    source = checkpoints.save(tmp_path / "a.ckpt", state, cfg)
    with pytest.raises(UserError, match=r"config.horizon.predict, config.horizon.act: give --set"):
        run_of(tmp_path, source=source)
    given = ["--set", "horizon.predict=16", "--set", "horizon.act=4"]
    config, _, _ = run_of(tmp_path, *given, source=source)
    assert config.denoiser.widths == (16, 32)  # the tensors say it
    assert config.horizon.predict == 16


def test_pusht_gets_the_observations_that_its_simulator_gives(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")  # 6 numbers observed
    source = checkpoints.save(tmp_path / "a.ckpt", state, cfg)
    with pytest.raises(UserError, match="keypoints=18,agent_pos=2: expected sizes that add up to"):
        run_of(tmp_path, "--task", "pusht", source=source)
    with pytest.raises(UserError, match="expected {'keypoints': 18, 'agent_pos': 2}, as task"):
        run_of(tmp_path, "--task", "pusht", "--observations", "state=6", source=source)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists: give a new folder; nothing is overwritten"):
        run_of(tmp_path)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--set", "horizon.axt=3"], "did you mean 'horizon.act'"),
        (["--set", "horizon.act=x"], "config.horizon.act='x' must be a whole number"),
        (["--observations", "a=2,a=1"], "expected name=size,…, each once, got 'a=1'"),
        (["--observations", "action=3"], "got 'action=3'"),
        (["--task", "pushtt"], "task 'pushtt' .* is unknown"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        run_of(tmp_path, *options)


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.npz"])
def test_a_resnets_weights_are_shown_their_place(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="config.encoder.weights"):
        run_of(tmp_path, source=tmp_path / name)
