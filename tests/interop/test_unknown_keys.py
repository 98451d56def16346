"""Keys of other libraries' policies that dpjax does not know: refused, or named in a line."""

import json

import pytest
from support import lerobot_folders

from dpjax.core.errors import UserError
from dpjax.interop import unknown
from dpjax.interop.chi2023 import unknown_keys
from dpjax.interop.lerobot import reader

CAMERAS = "lerobot_image_one_camera"


def import_with(folder, *, old=False, **changes):
    """Reads a LeRobot policy whose config.json has these keys too."""
    path = lerobot_folders.lerobot(folder / "policy", CAMERAS, old=old, **changes)[0]
    return reader.read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_relative_actions": True},
        {"action_is_delta": True},
        {"use_peft": True},
        {"relative_exclude_joints": ["gripper"]},
        {"tokenizer_name": "fast"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_options_that_change_actions_are_refused(tmp_path, changes):
    name = next(iter(changes))
    with pytest.raises(UserError, match=rf"config\.json: {name}: expected"):
        import_with(tmp_path, **changes)


def test_others_are_listed_and_neutral_values_are_not_mentioned(tmp_path, caplog):
    import_with(tmp_path, use_relative_actions=False, not_invented_yet=7, hub_branch="main")
    assert "left out: not_invented_yet=7, hub_branch=main: dpjax does not know" in caplog.text
    assert "use_relative_actions" not in caplog.text


def test_what_has_no_effect_is_said(tmp_path, caplog):
    import_with(tmp_path, crop_ratio=0.9, use_amp=True)
    assert "crop_ratio=0.9: without resize_shape it has no effect" in caplog.text
    assert "mixed precision is not used here" in caplog.text


def test_a_policy_as_lerobot_writes_it_gives_no_such_line(tmp_path, caplog):
    import_with(tmp_path, use_peft=False, crop_ratio=1.0, optimizer_lr=1e-4, tags=None)
    assert "left out: " not in caplog.text.replace("weights and are left out: ", "")


def _edit_step(folder, file, place, **options):
    """Adds options to a step's config in a processor's file."""
    path = folder / "policy" / file
    content = json.loads(path.read_text())
    content["steps"][place].setdefault("config", {}).update(options)
    path.write_text(json.dumps(content))
    return reader.read(folder / "policy")


def test_options_of_processors(tmp_path, caplog):
    import_with(tmp_path)
    file = "policy_preprocessor.json"
    _edit_step(tmp_path, file, 3, not_invented_yet=True)
    assert "steps.3.config.not_invented_yet=True" in caplog.text
    with pytest.raises(UserError, match=r"steps\.2\.config\.float_dtype: expected 'float32'"):
        _edit_step(tmp_path, file, 2, float_dtype="float16")
    _edit_step(tmp_path, file, 2, float_dtype=None)
    with pytest.raises(UserError, match=r"steps\.3\.config\.clip_range: expected none of it"):
        _edit_step(tmp_path, file, 3, clip_range=5.0)
    _edit_step(tmp_path, file, 3, clip_range=None)
    with pytest.raises(UserError, match=r"steps\.0\.config\.rename_map: expected \{\}"):
        _edit_step(tmp_path, file, 0, rename_map={"a": "b"})


def test_keys_of_chi_et_als_config(caplog):
    cfg = {
        "n_obs_steps": 2,
        "n_latency_steps": 0,
        "policy": {"horizon": 16, "model": {"down_dims": [8]}, "gripper_bins": 3},
        "shape_meta": {"obs": {"pose": {"shape": [3], "down_sample_steps": 1}}},
        "unheard_of": 1,
    }
    unknown_keys.check("x.ckpt", cfg)
    assert "x.ckpt: left out: cfg.unheard_of=1" in caplog.text
    assert "x.ckpt: left out: cfg.policy.gripper_bins=3" in caplog.text
    for change, name in (
        ({"n_latency_steps": 2}, "cfg.n_latency_steps"),
        ({"past_action_visible": True}, "cfg.past_action_visible"),
        ({"policy": {"action_delta": True}}, "cfg.policy.action_delta"),
        ({"shape_meta": {"obs": {"pose": {"down_sample_steps": 3}}}}, "obs.pose.down_sample_steps"),
    ):
        with pytest.raises(UserError, match=name):
            unknown_keys.check("x.ckpt", {**cfg, **change})


def test_what_switches_nothing_on():
    assert all(unknown.is_neutral(x) for x in (None, False, 0, "", [], {}))
    assert not any(unknown.is_neutral(x) for x in (True, 1, "a", [0], {"a": None}))
