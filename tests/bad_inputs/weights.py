"""Hostile and broken weights: each function writes one into a folder and returns its path.

CASES has, for each function, what the one line of the refusal must name. If code in one of the
files ran, it would create a file called CANARY.
"""

import json
import pickle
import struct
import warnings
import zipfile

import numpy as np
from safetensors.numpy import save_file
from support import checkpoints, torch_file
from support.torch_file import Call, Name, Raw, Tensor

CANARY = "canary"
TOUCH = f"touch {CANARY}"
GOOD = "dp_unet1d_global_bias"
WEIGHT = "model.mid_modules.0.blocks.0.block.0.weight"
CAMERAS = "lerobot_image_one_camera"


def good(folder, change=lambda state, cfg: None, **payload):
    """A good checkpoint that `change` spoils."""
    state, cfg, _, _ = checkpoints.lowdim(GOOD)
    change(state, cfg)
    return checkpoints.save(folder / "a.ckpt", state, cfg, **payload)


def pickled(folder, value, **options):
    """A file whose pickle is this value and nothing else."""
    return torch_file.save(folder / "a.ckpt", value, **options)


# Pickles that would run something.


def os_system(folder):
    return pickled(folder, Call("os.system", (TOUCH,)))


def posix_system(folder):
    return good(folder, cfg=Call("posix.system", (TOUCH,)))


def builtins_eval(folder):
    code = f"__import__('os').system({TOUCH!r})"
    return good(folder, state_dicts={"ema_model": Call("builtins.eval", (code,))})


class Reduced:
    """What pickle's __reduce__ runs."""

    def __reduce__(self):
        import subprocess

        return subprocess.call, (["touch", CANARY],)


def reduce_with_subprocess(folder):
    return pickled(folder, Raw(pickle.dumps(Reduced())))


def nested_dill_payload(folder):
    inner = pickle.dumps(Reduced())
    return good(folder, cfg=Call("dill._dill.loads", (inner,)))


def build_with_setstate(folder):
    state = {"__setstate__": Name("os.system"), "__class__": Name("os.system")}
    return good(folder, state_dicts={"ema_model": Call("argparse.Namespace", (), state)})


def setstate_of_a_known_call(folder):
    return pickled(folder, Call("collections.OrderedDict", (), {"__reduce__": Name("os.system")}))


def inst(folder):
    return pickled(folder, Raw(b"\x80\x02(X\x0c\x00\x00\x00touch canaryios\nsystem\n."))


def obj(folder):
    return pickled(folder, Raw(b"\x80\x02(cos\nsystem\nX\x0c\x00\x00\x00touch canaryo."))


def newobj_ex(folder):
    code = b"\x80\x04cos\nsystem\nX\x0c\x00\x00\x00touch canary\x85}\x92."
    return pickled(folder, Raw(code))


def stack_global(folder):
    code = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R."
    return pickled(folder, Raw(code))


def storage_that_is_a_call(folder):
    tensor = Call("torch._utils._rebuild_tensor_v2", (Call("os.system", (TOUCH,)), 0, (1,), (1,)))
    return good(folder, state_dicts={"ema_model": {WEIGHT: tensor}})


def extension_code(folder):
    return pickled(folder, Raw(b"\x80\x02\x82\x01."))


# Pickles that would fill the memory or never end.


def memo_bomb(folder):
    """A config whose lists hold each other: 2**60 values in 60 lists."""
    lists = [b"](K\x01eq\x00"]
    lists += [b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)]
    return good(folder, cfg=Raw(b"0".join(lists)))


def memo_index(folder):
    return pickled(folder, Raw(b"\x80\x02}r\xff\xff\xff\x7f."))


def long4(folder):
    return pickled(folder, Raw(b"\x80\x02\x8b" + struct.pack("<I", 2**31) + b"\x01."))


def long4_positive(folder):
    return pickled(folder, Raw(b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"\x01."))


def bytes_of_2_60(folder):
    return pickled(folder, Raw(b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a."))


def deep_nesting(folder):
    return good(folder, cfg=Raw(b"]" + b"\x85" * 200_000))


def deep_key(folder):
    return pickled(folder, Raw(b"\x80\x02}])" + b"\x85" * 200_000 + b"Ns."))


def stack_underflow(folder):
    return pickled(folder, Raw(b"\x80\x02R."))


def cut_pickle(folder):
    return pickled(folder, Raw(b"\x80\x02}q\x00X\x03\x00\x00\x00cf"))


# Zips.


def rezip(path, edit, compression=zipfile.ZIP_STORED):
    """Writes the zip again, with the entries that edit([(ZipInfo, bytes)]) returns."""
    with zipfile.ZipFile(path) as file:
        entries = [(info, file.read(info)) for info in file.infolist()]
    with zipfile.ZipFile(path, "w", compression) as out:
        for info, data in edit(entries):
            out.writestr(info, data)
    return path


def added(name, data=b"x", mode=0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return lambda entries: [*entries, (info, data)]


def slip(folder):
    return rezip(good(folder), added("archive/../../escaped"))


def absolute_name(folder):
    return rezip(good(folder), added("/tmp/escaped"))


def backslash_name(folder):
    return rezip(good(folder), added("archive/..\\..\\escaped"))


def link(folder):
    return rezip(good(folder), added("archive/data/link", b"/etc/passwd", 0o120777))


def zip_bomb(folder):
    def edit(entries):
        info = zipfile.ZipInfo("archive/data.pkl")
        info.compress_type = zipfile.ZIP_DEFLATED
        return [(info, b"\x00" * 2**28)]

    return rezip(good(folder), edit)


def huge_pickle(folder):
    return pickled(folder, Raw(b"\x80\x02" + b"N0" * 2**24 + b"N."))


def overlapping_entries(folder):
    """Two entries of the directory at the same place of the file."""
    path = good(folder)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", at + 4)
    data[second + 42 : second + 46] = data[at + 42 : at + 46]
    path.write_bytes(data)
    return path


def twice_the_same_entry(folder):
    path = good(folder)
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings(action="ignore"):
        file.writestr("archive/data.pkl", b"\x80\x02N.")
    return path


def two_archives(folder):
    return rezip(good(folder), added("other/data.pkl", b"\x80\x02N."))


def cut_zip(folder):
    path = good(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def flipped_bit(folder):
    path = lying(folder)  # its averaged weights are all that it has
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


# Tensors whose bookkeeping lies.


def lying(folder, **fields):
    def change(state, cfg):
        state[WEIGHT] = Tensor(state[WEIGHT], **fields)

    state, cfg, _, _ = checkpoints.lowdim(GOOD)
    change(state, cfg)
    return checkpoints.save(folder / "a.ckpt", state, cfg, state_dicts={"ema_model": state})


def many_elements(folder):
    return lying(folder, shape=(2**30, 2**30), strides=(2**30, 1))


def many_elements_of_one(folder):
    return lying(folder, shape=(2**30, 2**30), strides=(0, 0))


def negative_stride(folder):
    return lying(folder, strides=(-1, 3, 1))


def overlapping_strides(folder):
    return lying(folder, strides=(1, 3, 1))


def short_storage(folder):
    return lying(folder, count=2**40)


def offset_beyond(folder):
    return lying(folder, offset=10)


def unknown_dtype(folder):
    return lying(folder, kind="torch.ComplexFloatStorage")


def shape_of_text(folder):
    return lying(folder, shape=("a", "b", "c"))


def big_endian(folder):
    state, cfg, _, _ = checkpoints.lowdim(GOOD)
    payload = {"cfg": torch_file.node(cfg), "state_dicts": {"ema_model": state}}
    return torch_file.save(folder / "a.ckpt", payload, order=b"big")


def integer_weight(folder):
    return good(folder, lambda state, _: state.update({WEIGHT: state[WEIGHT].astype(np.int64)}))


def same_bytes_under_many_names(folder):
    x = Tensor(np.zeros(100_000, np.float32), key="shared")
    state = {f"model.{i}": x for i in range(1000)}
    return good(folder, state_dicts={"ema_model": state})


# States that are not the network's.


def nan_weight(folder):
    def change(state, _):
        state[WEIGHT] = np.where(np.arange(3) == 1, np.nan, state[WEIGHT]).astype(np.float32)

    return good(folder, change)


def missing_tensor(folder):
    return good(folder, lambda state, _: state.pop(WEIGHT))


def extra_tensor(folder):
    return good(folder, lambda state, _: state.update({"model.more": np.zeros(3, np.float32)}))


def transposed_tensor(folder):
    def change(state, _):
        name = "model.diffusion_step_encoder.1.weight"
        state[name] = np.ascontiguousarray(state[name].T)

    return good(folder, change)


def normalizer(folder, value, part="scale", key="action"):
    def change(state, _):
        state[f"normalizer.params_dict.{key}.{part}"][1] = value

    return good(folder, change)


def scale_0(folder):
    return normalizer(folder, 0)


def scale_nan(folder):
    return normalizer(folder, np.nan)


def scale_1e9(folder):
    return normalizer(folder, 1e9)


def offset_inf(folder):
    return normalizer(folder, np.inf, "offset", "obs")


def no_normalizer(folder):
    return good(folder, lambda state, _: state.pop("normalizer.params_dict.obs.scale"))


def no_target(folder):
    return good(folder, lambda _, cfg: cfg["policy"].pop("_target_"))


def no_horizon(folder):
    return good(folder, lambda _, cfg: cfg.pop("horizon"))


def horizon_of_2_40(folder):
    return good(folder, lambda _, cfg: cfg.update(horizon=2**40))


def another_schedule(folder):
    def change(_, cfg):
        cfg["policy"]["noise_scheduler"] = {**checkpoints.SCHEDULER, "variance_type": "learned"}

    return good(folder, change)


# safetensors, in a folder of LeRobot's.


def lerobot(folder, **changes):
    return checkpoints.lerobot(folder / "policy", CAMERAS, **changes)[0]


def header(folder, text, data=b"", length=None):
    """A model.safetensors with that header."""
    path = lerobot(folder)
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    length = len(text) if length is None else length
    (path / "model.safetensors").write_bytes(struct.pack("<Q", length) + text + data)
    return path


def entry(begin, end, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def header_of_2_63(folder):
    return header(folder, {}, length=2**63)


def header_longer_than_the_file(folder):
    return header(folder, {}, length=10_000)


def overlapping_arrays(folder):
    return header(folder, {"a": entry(0, 8, shape=[2]), "b": entry(4, 8)}, b"\0" * 8)


def hole_between_arrays(folder):
    return header(folder, {"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12)


def bytes_after_the_arrays(folder):
    return header(folder, {"a": entry(0, 4)}, b"\0" * 12)


def twice_the_same_name(folder):
    one = json.dumps(entry(0, 4))
    return header(folder, f'{{"a": {one}, "a": {one}}}'.encode(), b"\0" * 4)


def wrong_dtype(folder):
    return header(folder, {"a": entry(0, 4, "PyObject")}, b"\0" * 4)


def shape_that_does_not_fit(folder):
    return header(folder, {"a": entry(0, 4, shape=[2**31, 2**31])}, b"\0" * 4)


def shape_that_is_no_number(folder):
    return header(folder, {"a": entry(0, 4, shape=[True])}, b"\0" * 4)


def header_that_is_not_utf8(folder):
    return header(folder, b'{"\xff\xfe": 1}')


def header_that_is_deep(folder):
    return header(folder, b"[" * 200_000)


def deep_field_beside_the_three(folder):
    """A field that the library skips, nested deeper than Python's JSON reader can follow."""
    deep = "[" * 100_000 + "]" * 100_000
    text = json.dumps(entry(0, 4))[:-1] + f', "more": {deep}}}'
    return header(folder, f'{{"a": {text}}}'.encode(), b"\0" * 4)


def dtype_that_numpy_lacks(folder):
    return header(folder, {"a": entry(0, 1, "F8_E4M3")}, b"\0")


def change_state(folder, change):
    """A folder of LeRobot's whose tensors were changed."""
    from safetensors.numpy import load_file

    path = lerobot(folder)
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors")
    return path


def nan_array(folder):
    return change_state(
        folder, lambda state: state["diffusion.unet.final_conv.1.bias"].fill(np.nan)
    )


def array_of_another_network(folder):
    return change_state(folder, lambda state: state.pop("diffusion.rgb_encoder.out.bias"))


def nan_statistic(folder):
    path = lerobot(folder)
    stats = {"action.min": np.float32([-1, np.nan]), "action.max": np.float32([1, 1])}
    save_file(stats, path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    inputs = {"observation.state.min": -np.ones(3, "f4"), "observation.state.max": np.ones(3, "f4")}
    for part in ("mean", "std"):
        inputs[f"observation.images.top.{part}"] = np.ones(3, np.float32)
    save_file(inputs, path / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    return path


def action_that_is_restored_otherwise(folder):
    path = lerobot(folder)
    stats = {"action.min": np.float32([-1, -2]), "action.max": np.float32([1, 1])}
    save_file(stats, path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    return path


def batch_norms_without_statistics(folder):
    return lerobot(folder, use_group_norm=False)


def no_statistics(folder):
    path = lerobot(folder)
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (path / name).unlink()
    return path


def statistics_elsewhere(folder):
    path = lerobot(folder)
    name = path / "policy_preprocessor.json"
    content = json.loads(name.read_text())
    content["steps"][-1]["state_file"] = "../../secret.safetensors"
    name.write_text(json.dumps(content))
    return path


def unknown_processor(folder):
    path = lerobot(folder)
    name = path / "policy_preprocessor.json"
    content = json.loads(name.read_text())
    content["steps"].insert(0, {"registry_name": "delta_actions_processor", "config": {}})
    name.write_text(json.dumps(content))
    return path


def no_json(folder):
    path = lerobot(folder)
    (path / "config.json").write_text("type: diffusion")
    return path


def no_down_dims(folder):
    path = lerobot(folder)
    content = json.loads((path / "config.json").read_text())
    del content["down_dims"]
    (path / "config.json").write_text(json.dumps(content))
    return path


def another_policy(folder):
    return lerobot(folder, type="act")


def resized_images(folder):
    return lerobot(folder, resize_shape=[40, 40])


# Files that are something else.


def lfs_pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "a.ckpt").write_text(text)
    return folder / "a.ckpt"


def lfs_pointer_of_safetensors(folder):
    path = lerobot(folder)
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    return path


def empty_folder(folder):
    (folder / "nothing").mkdir()
    return folder / "nothing"


def no_file(folder):
    return folder / "nowhere.ckpt"


def empty_file(folder):
    (folder / "a.ckpt").write_bytes(b"")
    return folder / "a.ckpt"


def a_page_of_text(folder):
    (folder / "a.ckpt").write_text("<html>404</html>")
    return folder / "a.ckpt"


def legacy_torch(folder):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    (folder / "a.ckpt").write_bytes(magic + pickle.dumps(1001, protocol=2))
    return folder / "a.ckpt"


def legacy_tar(folder):
    import tarfile

    (folder / "pickle").write_bytes(b"\x80\x02N.")
    with tarfile.open(folder / "a.ckpt", "w", format=tarfile.USTAR_FORMAT) as out:
        out.add(folder / "pickle", "pickle")
    return folder / "a.ckpt"


def torchvision(folder):
    state = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    state.update({"fc.weight": np.zeros((10, 512), np.float32)})
    state["layer1.0.conv1.weight"] = np.zeros((64, 64, 3, 3), np.float32)
    return pickled(folder, state)


CASES = {
    os_system: "data.pkl: expected a dict",
    posix_system: "cfg: expected Hydra's config",
    builtins_eval: r"state_dicts.ema_model: expected a state dict",
    reduce_with_subprocess: "data.pkl: expected a dict",
    nested_dill_payload: "cfg: expected Hydra's config",
    build_with_setstate: "state_dicts.ema_model: expected a state dict",
    setstate_of_a_known_call: "data.pkl: expected the keys cfg and state_dicts",
    inst: "data.pkl: expected a dict",
    obj: "data.pkl: expected a dict",
    newobj_ex: "data.pkl: expected a dict",
    stack_global: "data.pkl: expected a dict",
    storage_that_is_a_call: "data.pkl: .* a tensor without its bytes",
    extension_code: "data.pkl: .* instruction EXT1 at byte 2",
    memo_bomb: r"cfg: more than 200000 values or 60 levels",
    memo_index: "data.pkl: expected the keys cfg and state_dicts",
    long4: "data.pkl: expected torch.save's pickle: ValueError",
    long4_positive: "data.pkl: expected torch.save's pickle: ValueError",
    bytes_of_2_60: "data.pkl: expected torch.save's pickle: ValueError",
    deep_nesting: r"cfg: more than 200000 values or 60 levels",
    deep_key: "data.pkl: .* a key of type tuple",
    stack_underflow: "data.pkl: .* an instruction without its operands",
    cut_pickle: "data.pkl: expected torch.save's pickle: ValueError",
    slip: "entry 'archive/../../escaped': expected a name",
    absolute_name: "entry '/tmp/escaped': expected a name",
    backslash_name: r"entry 'archive/.*escaped': expected a name",
    link: "entry 'archive/data/link': a link",
    zip_bomb: "entry 'archive/data.pkl': compressed to .* of 268435456 bytes",
    huge_pickle: "data.pkl has 33554436 bytes, 16777216 at most",
    overlapping_entries: "entry .* overlaps",
    twice_the_same_entry: "each once",
    two_archives: "expected the entries of one torch.save",
    cut_zip: "can't be read as a zip",
    flipped_bit: "damaged|can't be read|not finite",
    many_elements: f"{WEIGHT}: shape .* reaches number",
    many_elements_of_one: f"{WEIGHT}: its strides .* overlap",
    negative_stride: f"{WEIGHT}: expected sizes and strides of 0 or more",
    overlapping_strides: f"{WEIGHT}: its strides .* overlap",
    short_storage: f"{WEIGHT}: expected 4398046511104 bytes in entry .*, got 12288",
    offset_beyond: f"{WEIGHT}: shape .* reaches number 3081 of 3072",
    unknown_dtype: f"{WEIGHT}: expected one of .*, got 'torch.ComplexFloatStorage'",
    shape_of_text: f"{WEIGHT}: expected sizes and strides",
    big_endian: "byteorder: expected little",
    integer_weight: f"{WEIGHT}: expected floats, got int64",
    same_bytes_under_many_names: "expected no more than 4 times the file",
    nan_weight: f"{WEIGHT}: 1024 of 3072 numbers are not finite",
    missing_tensor: rf"1 missing \({WEIGHT}\)",
    extra_tensor: r"1 left over \(model.more\)",
    transposed_tensor: r"1 of another shape \(model.diffusion_step_encoder.1.weight: expected \[64",
    scale_0: r"normalizer.params_dict.action.scale\[1\]: expected .* got 0.0",
    scale_nan: r"normalizer.params_dict.action.scale: 1 of 7 numbers are not finite",
    scale_1e9: r"normalizer.params_dict.action.scale\[1\]: expected .* got 1e\+09",
    offset_inf: r"normalizer.params_dict.obs.offset: 1 of 6 numbers are not finite",
    no_normalizer: "normalizer.params_dict.obs.scale: expected one number per dimension",
    no_target: "cfg.policy._target_: expected the name of the policy's class",
    no_horizon: "cfg does not say config.horizon.predict. Give --set horizon.predict=",
    horizon_of_2_40: "config.horizon.predict: expected .* 1 to 10,000, got 1099511627776. Give",
    another_schedule: "cfg.policy.noise_scheduler.variance_type: expected 'fixed_small'",
    header_of_2_63: "model.safetensors: can't be read as .* header too large",
    header_longer_than_the_file: "model.safetensors: can't be read as .* invalid header length",
    overlapping_arrays: "model.safetensors: can't be read as .* invalid offset for tensor `b`",
    hole_between_arrays: "model.safetensors: can't be read as .* invalid offset for tensor `b`",
    bytes_after_the_arrays: "model.safetensors: can't be read as .* file not fully covered",
    twice_the_same_name: "model.safetensors: can't be read as .* 'a' is there twice",
    wrong_dtype: "model.safetensors: can't be read as .* unknown variant `PyObject`",
    shape_that_does_not_fit: "model.safetensors: can't be read as .* overflow computing buffer",
    shape_that_is_no_number: "model.safetensors: can't be read as .* boolean `true`, expected",
    header_that_is_not_utf8: "model.safetensors: can't be read as .* invalid UTF-8 in header",
    header_that_is_deep: "model.safetensors: can't be read as .* invalid JSON in header",
    deep_field_beside_the_three: "model.safetensors: can't be read as .* recursion limit exceeded",
    dtype_that_numpy_lacks: "model.safetensors: can't be read as .* 'float8_e4m3fn'",
    nan_array: "diffusion.unet.final_conv.1.bias: 2 of 2 numbers are not finite",
    array_of_another_network: r"1 missing \(diffusion.rgb_encoder.out.bias\)",
    nan_statistic: r"action.min\[1\]: expected a number, got nan",
    action_that_is_restored_otherwise: "action.min: expected the numbers that it is normalized",
    batch_norms_without_statistics: "use_group_norm: expected True",
    no_statistics: "policy_preprocessor.json: expected the file, or statistics",
    statistics_elsewhere: "state_file: expected the name of a file beside it",
    unknown_processor: "steps.0.registry_name: expected .* got 'delta_actions_processor'",
    no_json: "config.json: the file: expected JSON",
    no_down_dims: "config.json: down_dims: expected a value, got nothing",
    another_policy: "config.json: type: expected 'diffusion'",
    resized_images: "config.json: resize_shape: expected none",
    lfs_pointer: "a.ckpt: a Git LFS pointer",
    lfs_pointer_of_safetensors: "model.safetensors: a Git LFS pointer",
    empty_folder: "config.json: the file: expected JSON of a LeRobot policy, got no such file",
    no_file: "nowhere.ckpt: expected a file that torch.save wrote, got nothing",
    empty_file: "a.ckpt: expected a zip that torch.save wrote, got b''",
    a_page_of_text: "a.ckpt: expected a zip that torch.save wrote",
    legacy_torch: r"a.ckpt: torch's format from before 1.6",
    legacy_tar: r"a.ckpt: torch's format from before 1.6",
    torchvision: "config.encoder.weights",
}
