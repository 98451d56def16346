"""import_weights as a command: a file that torch wrote, its options, and what it refuses."""

import importlib.util
import re

from flax import traverse_util
import numpy as np
import pytest
from support import checkpoints

from dpjax import import_weights
from dpjax.core.errors import UserError
from dpjax.interop import networks, weight_map
from dpjax.runs import config_file
from dpjax.training import checkpoint

MAKER = checkpoints.GOLDEN / "make_checkpoint.py"


def saved_state():
    """The numbers in original_small.ckpt, from the script that made it."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", MAKER)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.state(0)


def import_run(tmp_path, *options, source=checkpoints.GOLDEN / "original_small.ckpt"):
    """(config, spec, params) of the run that the command makes."""
    import_weights.main([str(source), "--run", str(tmp_path / "run"), *options])
    config, spec = config_file.read_config(tmp_path / "run")
    return config, spec, checkpoint.load_params(tmp_path / "run")[0]


def test_a_file_that_torch_saved_with_dill_is_read_to_the_last_number(tmp_path, caplog):
    config, spec, params = import_run(tmp_path)
    expected = {name: x for name, x in saved_state().items() if name.startswith("model.")}
    leaves = traverse_util.flatten_dict(params["denoiser"])
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    tensors = weight_map.tensors_from(networks.unet(shapes, prefix="model."), leaves)
    assert tensors.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(tensors[name], expected[name], err_msg=name)
    assert (config.horizon.obs, config.horizon.predict, config.horizon.act) == (2, 4, 2)
    assert config.denoiser.widths == (8, 16) and config.predict == "epsilon"
    assert spec.observations == {"state": 3} and spec.action == 2
    assert "6 names in the pickle were read as data and not called: omegaconf" in caplog.text
    assert "9 tensors are not weights and are left out" in caplog.text


def test_the_checkpoint_keeps_where_it_came_from_and_the_warnings(tmp_path):
    import_run(tmp_path)
    imported = checkpoint.read_meta(tmp_path / "run", 0)["imported"]
    assert imported["source"] == "original_small.ckpt"
    assert re.fullmatch("[0-9a-f]{64}", imported["sha256"])
    assert [text for text in imported["said"] if "9 tensors are not weights" in text]


def test_options_name_observations_and_replace_what_the_file_says(tmp_path):
    options = ["--observations", "arm=2,hand=1", "--set", "sampler.name=ddim"]
    options += ["--set", "sampler.num_steps=10", "--set", "horizon.act=3"]
    config, spec, params = import_run(tmp_path, *options)
    assert spec.observations == {"arm": 2, "hand": 1}
    assert (config.sampler.name, config.sampler.num_steps, config.horizon.act) == ("ddim", 10, 3)
    assert params["normalizer"].scale["arm"].shape == (2,)
    with pytest.raises(UserError, match="--observations arm=2: .* add up to the 3 numbers that"):
        import_run(tmp_path / "b", "--observations", "arm=2")


def test_another_sampler_and_another_seed_are_accepted(tmp_path):
    options = ["--set", "sampler.name=dpm_solver", "--set", "seed=1000000"]
    config, _, _ = import_run(tmp_path, *options)
    assert (config.sampler.name, config.sampler.diffusers) == ("dpm_solver", "current")
    assert config.seed == 1_000_000  # no size of a network, however large


def test_everything_that_the_file_does_not_say_is_asked_for_at_once(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")
    del cfg["horizon"], cfg["n_action_steps"], cfg["policy"]["model"]["down_dims"]
    source = checkpoints.save(tmp_path / "a.ckpt", state, cfg)
    message = (
        r"config.horizon.predict, config.horizon.act. Give --set horizon.predict=… --set horizon"
    )
    with pytest.raises(UserError, match=message):
        import_run(tmp_path, source=source)
    options = ["--set", "horizon.predict=16", "--set", "horizon.act=4"]
    config, _, _ = import_run(tmp_path, *options, source=source)
    assert config.denoiser.widths == (16, 32)  # from the shapes of the tensors
    assert config.horizon.predict == 16


def test_a_prediction_type_that_is_missing_is_asked_for_by_its_config_key(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")
    scheduler = {**checkpoints.SCHEDULER}
    del scheduler["prediction_type"]
    cfg["policy"]["noise_scheduler"] = scheduler
    source = checkpoints.save(tmp_path / "a.ckpt", state, cfg)
    with pytest.raises(UserError, match="cfg does not say config.predict. Give --set predict=…"):
        import_run(tmp_path, source=source)
    config, _, _ = import_run(tmp_path, "--set", "predict=epsilon", source=source)
    assert config.predict == "epsilon"


def test_pusht_needs_the_observations_that_its_simulator_gives(tmp_path):
    state, cfg, _, _ = checkpoints.lowdim("dp_unet1d_global_bias")  # it observes 6 numbers
    source = checkpoints.save(tmp_path / "a.ckpt", state, cfg)
    with pytest.raises(UserError, match="keypoints=18,agent_pos=2: expected sizes that add up to"):
        import_run(tmp_path, "--task", "pusht", source=source)
    with pytest.raises(UserError, match="expected {'keypoints': 18, 'agent_pos': 2}, as task"):
        import_run(tmp_path, "--task", "pusht", "--observations", "state=6", source=source)


def test_the_former_name_of_the_task_without_a_simulator_still_works(tmp_path, caplog):
    config, _, _ = import_run(tmp_path, "--task", "own")
    assert config.task == "custom" and "task 'own' is now 'custom'" in caplog.text


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists: give a new folder; nothing is overwritten"):
        import_run(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--set", "horizon.axt=3"], "did you mean 'horizon.act'"),
        (["--set", "horizon.act=x"], "config.horizon.act='x' must be a whole number"),
        (["--observations", "a=2,a=1"], "expected name=size,…, each once, got 'a=1'"),
        (["--observations", "action=3"], "got 'action=3'"),
        (["--task", "pushtt"], "--task 'pushtt' is unknown; did you mean 'pusht'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        import_run(tmp_path, *options)


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.npz"])
def test_for_a_resnets_weights_the_error_names_their_config_key(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="config.encoder.weights"):
        import_run(tmp_path, source=tmp_path / name)
