"""Turns a policy of another library into a run folder.

The readers in `dpjax/interop` do not know the config keys: they return settings, by group and name.
The functions here convert settings to config keys, and back.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import logging
from pathlib import Path
from typing import Any

from flax import traverse_util
import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, cameras, checks, components, dataset, defaults
from dpjax.config.arguments import names_keys
from dpjax.config.defaults import OPEN
from dpjax.config.keys import check_type, flatten
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch, Params
from dpjax.interop import weight_map
from dpjax.interop.chi2023 import checkpoint as chi2023
from dpjax.interop.imported import ImportedPolicy, SettingError, Settings, name_of
from dpjax.interop.lerobot import reader as lerobot
from dpjax.runs.config_file import restore_tuples, write_config
from dpjax.runs.new_folder import new_folder
from dpjax.training.checkpoint import Checkpoints
from dpjax.training.state import TrainState

# {setting of group "policy": config key}. These keys belong to no section of the config. All other
# groups and their settings have the same names as sections of the config and their keys.
POLICY_KEYS = {
    "prediction_type": "predict",
    "condition": "condition",
    "method": "method",
}
CHUNK = 2**24  # bytes that `digest` reads at once


def config_key(group: str, name: str) -> str:
    """The dotted config key of a setting."""
    return POLICY_KEYS[name] if group == "policy" else ".".join(filter(None, (group, name)))


def with_config_keys(error: SettingError) -> str:
    """The text of an error, with config keys in place of settings."""
    text = str(error)
    for setting in error.settings:
        text = text.replace(name_of(*setting), f"config.{config_key(*setting)}", 1)
    return text


def settings_from_config(config: ConfigDict) -> Settings:
    """A config as settings."""
    # Sections become groups. Keys without a section become the group "policy".
    tree = config.to_dict()
    settings = {group: values for group, values in tree.items() if isinstance(values, dict)}
    settings["policy"] = {name: tree[key] for name, key in POLICY_KEYS.items()}
    return settings


def settings_from_keys(values: Mapping[str, Any]) -> Settings:
    """{config key: value} as settings, without the cameras, which no reader takes."""
    # {config key: setting} for the group "policy". Other keys are split at the first dot.
    names = {key: ("policy", name) for name, key in POLICY_KEYS.items()}
    settings: Settings = {}
    for key, value in values.items():
        # The part before the first dot is the group.
        group, name = names.get(key) or key.partition(".")[::2]
        if group != "cameras":
            settings.setdefault(group, {})[name] = value
    return settings


def read(
    source: Path, observations: Mapping[str, int] | None, values: Mapping[str, Any]
) -> ImportedPolicy:
    """Reads the policy from a checkpoint of Chi et al.'s code, or from a folder of LeRobot.

    observations: {name: size}, how the user splits the policy's vector of numbers; None for one.
    values: {config key: value} of the user, which replace settings of the source.
    Raises UserError if the source is neither of the two.
    """
    # A single file of weights lacks the sizes and units of a policy.
    if source.suffix in (".safetensors", ".npz") and source.is_file():
        raise UserError(
            f"{source}: one file of a policy: give the folder, with config.json in it. (A ResNet's "
            "weights are for config.encoder.weights in a training.)"
        )
    # LeRobot saves a folder, Chi et al.'s code a file. Each reader refuses formats of others.
    library = lerobot if source.is_dir() else chi2023
    try:
        with names_keys(encoder_weights="encoder.weights"):
            return library.read(source, observations or None, settings_from_keys(values))
    # A setting that the source lacks, or that is not supported, can be given with --set.
    except SettingError as error:
        options = " ".join(f"--set {config_key(*setting)}=…" for setting in error.settings)
        raise UserError(f"{with_config_keys(error)} Give {options}.") from error


def config_for(policy: ImportedPolicy, task_name: str, values: Mapping[str, Any]) -> ConfigDict:
    """The checked config of the run: defaults, settings of the policy, values of the user.

    values: {config key: value} of the user, which replace the settings of the policy.
    """
    # 1. The task, and the columns that fine-tuning on data of this policy would read.
    config = defaults.get_config()
    config.task = task_name
    if tasks.get(task_name).simulator is None:
        columns = {key: f"observation/{key}" for key in policy.observations}
        config.data.columns = ConfigDict({**columns, ACTION: "action"})
        config.eval.every = 0  # no simulator to evaluate in
    config.denoiser = ConfigDict()  # without the keys of the default network
    # 2. {config key: value} of the policy, then of the user.
    settings = {
        config_key(group, name): value
        for group, names in policy.settings.items()
        for name, value in names.items()
    }
    settings.update(values)
    # 3. Each value, after a check of its type, goes into the config.
    examples = values_of_type(settings[config_key("denoiser", "name")])
    for key, value in settings.items():
        value = restore_tuples(value)  # files have lists where the config has tuples
        if key in examples:
            check_type(key, value, examples[key])
        # Find the section of the key. The value is a dict if the key is a new camera.
        *sections, name = key.split(".")
        section = config
        for section_name in sections:
            section = section[section_name]
        section[name] = ConfigDict(value) if isinstance(value, dict) else value
    checks.check(config)
    return config


def values_of_type(denoiser: str) -> dict[str, Any]:
    """{config key: a value of its type}, for all keys whose type is known."""
    # Users choose the keys of open sections, so these have no known types.
    keys = flatten(defaults.get_config().to_dict())
    examples = {key: restore_tuples(x) for key, x in keys.items() if not key.startswith(OPEN)}
    # The fields of the network. An unknown network is refused later, by `checks.check`.
    if denoiser in components.DENOISERS:
        for name, default in components.denoiser_fields(denoiser).items():
            if type(default) in (bool, int, float, str, tuple):  # not every field has a default
                examples[config_key("denoiser", name)] = default
    return examples


def params_for(policy: ImportedPolicy, config: ConfigDict, spec: Spec) -> Params:
    """The params of a policy, converted from its tensors with the weight maps of both networks.

    Raises UserError with the names of tensors that belong to no network.
    """
    # 1. The policy's units become the normalizer, which is a part of the params.
    offsets = {key: offset for key, (offset, _) in policy.units.items()}
    scales = {key: scale for key, (_, scale) in policy.units.items()}
    normalizer = Normalizer(offsets, scales)
    expected = param_shapes(config, spec, normalizer)
    # 2. One table for both networks, so that a tensor that neither network needs is noticed.
    table = []
    shapes = {}
    for item, network_table in (("encoder", policy.encoder), ("denoiser", policy.denoiser)):
        leaves = traverse_util.flatten_dict(expected[item])
        network_shapes = {path: leaf.shape for path, leaf in leaves.items()}
        for entry in network_table(network_shapes):
            table.append(entry._replace(path=(item, *entry.path)))
        shapes.update({(item, *path): shape for path, shape in network_shapes.items()})
    # 3. The arrays. An encoder without weights gets no leaf here, but params need its (empty) dict.
    params = weight_map.params_from(policy.source, table, shapes, policy.tensors)
    return {"encoder": {}, **params, "normalizer": normalizer}


def param_shapes(config: ConfigDict, spec: Spec, normalizer: Normalizer) -> Params:
    """The shapes of the params that the config's policy has."""
    # `eval_shape` traces `init` without computing a number, so it is fast and takes no memory.
    policy = build.policy(config, normalizer, spec)
    observations = cameras.observation_shapes(spec, dataset.observed_steps(config))
    # The shapes of a batch with one example.
    shape = lambda *size, dtype=np.float32: jax.ShapeDtypeStruct((1, *size), dtype)
    steps = config.horizon.predict
    batch = Batch(
        {key: shape(*leaf.shape, dtype=leaf.dtype) for key, leaf in observations.items()},
        shape(steps, spec.action),
        shape(steps),
        shape(dtype=np.int32),
    )
    return jax.eval_shape(policy.init, jax.random.key(0), batch)


def write(out: Path, config: ConfigDict, spec: Spec, params: Params, imported: dict) -> None:
    """Writes the run folder, with one checkpoint of step 0.

    imported: the origin of the weights, for the metadata of the checkpoint.
    """
    with new_folder(out, "--run") as folder:
        write_config(folder, config, spec)
        # Raw and averaged weights are the same. There is no optimizer state to resume from.
        state = TrainState(np.int32(0), params, params, np.int32(0), {})
        with contextlib.closing(Checkpoints(folder)) as checkpoints:
            checkpoints.save(state, config=config.to_dict(), extra={"imported": imported})


def digest(source: Path) -> str:
    """The sha256 of a file, or of all files in a folder, with a progress bar."""
    # A folder may have subfolders, such as those of a download cache, which are not read.
    is_folder = source.is_dir()
    paths = sorted(path for path in source.iterdir() if path.is_file()) if is_folder else [source]
    total = sum(path.stat().st_size for path in paths)
    sha256 = hashlib.sha256()
    with tqdm(total=total, unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        for path in paths:
            if is_folder:  # two files that swap names must change the digest
                sha256.update(path.name.encode())
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    sha256.update(chunk)
                    bar.update(len(chunk))
    return sha256.hexdigest()


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """A context with a list, to which the text of each warning that dpjax logs is added."""
    # An additional handler: the existing ones still print the warnings.
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("dpjax")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
