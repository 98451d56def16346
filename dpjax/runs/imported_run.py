"""Makes a run folder of another library's policy.

The readers in `dpjax/interop` know no config: they return settings by group and name. The
functions here give each setting its config key, and back.
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

# The settings of group "policy" are keys of the config's top level. All other groups are
# sections of the config, with the same names.
POLICY_KEYS = {
    "prediction_type": "predict",
    "condition": "condition",
    "method": "method",
}
CHUNK = 2**24  # bytes read at once for the digest


def config_key(group: str, name: str) -> str:
    """The config key of a setting, dotted."""
    return POLICY_KEYS[name] if group == "policy" else ".".join(filter(None, (group, name)))


def with_config_keys(error: SettingError) -> str:
    """The text of an error, with the config keys of its settings."""
    text = str(error)
    for setting in error.settings:
        text = text.replace(name_of(*setting), f"config.{config_key(*setting)}", 1)
    return text


def settings_from_config(config: ConfigDict) -> Settings:
    """A config's keys as settings."""
    # Sections become groups; the few keys beside them are the group "policy".
    tree = config.to_dict()
    settings = {group: values for group, values in tree.items() if isinstance(values, dict)}
    settings["policy"] = {name: tree[key] for name, key in POLICY_KEYS.items()}
    return settings


def settings_from_keys(values: Mapping[str, Any]) -> Settings:
    """{config key: value} as settings; the cameras' keys are left out, they are the task's."""
    # The table the other way round.
    names = {key: ("policy", name) for name, key in POLICY_KEYS.items()}
    settings: Settings = {}
    for key, value in values.items():
        group, name = names.get(key) or key.partition(".")[::2]
        if group != "cameras":
            settings.setdefault(group, {})[name] = value
    return settings


def read(
    source: Path, observations: Mapping[str, int] | None, values: Mapping[str, Any]
) -> ImportedPolicy:
    """The policy in a checkpoint of Chi et al.'s code, or in a folder of LeRobot's.

    observations: the user's names and sizes of its numbers. values: {config key: value} that
    replace what the source says. Raises UserError for anything else.
    """
    if source.suffix in (".safetensors", ".npz") and source.is_file():
        raise UserError(
            f"{source}: one file of a policy: give the folder, with config.json in it. (A ResNet's "
            "weights are for config.encoder.weights in a training.)"
        )
    # A folder is LeRobot's, a file Chi et al.'s; each reader refuses what it does not know.
    library = lerobot if source.is_dir() else chi2023
    try:
        with names_keys(encoder_weights="encoder.weights"):
            return library.read(source, observations or None, settings_from_keys(values))
    except SettingError as error:
        options = " ".join(f"--set {config_key(*setting)}=…" for setting in error.settings)
        raise UserError(f"{with_config_keys(error)} Give {options}.") from error


def config_for(policy: ImportedPolicy, task_name: str, values: Mapping[str, Any]) -> ConfigDict:
    """The run's config: the defaults, the policy's settings, then the user's; checked.

    values: {config key: value} of the user.
    """
    # The task, and the columns that a training on data of this policy would read.
    config = defaults.get_config()
    config.task = task_name
    if tasks.get(task_name).simulator is None:
        columns = {key: f"observation/{key}" for key in policy.observations}
        config.data.columns = ConfigDict({**columns, ACTION: "action"})
        config.eval.every = 0  # there is nothing to evaluate in
    config.denoiser = ConfigDict()  # the default's keys may be another network's
    # Every setting at its config key. The user's come last and replace the policy's.
    settings = {
        config_key(group, name): value
        for group, names in policy.settings.items()
        for name, value in names.items()
    }
    settings.update(values)
    examples = values_of_type(settings[config_key("denoiser", "name")])
    for key, value in settings.items():
        value = restore_tuples(value)
        if key in examples:
            check_type(key, value, examples[key])
        # Walk down to the section of the key; a new camera is a section of its own.
        *sections, name = key.split(".")
        section = config
        for section_name in sections:
            section = section[section_name]
        section[name] = ConfigDict(value) if isinstance(value, dict) else value
    checks.check(config)
    return config


def values_of_type(denoiser: str) -> dict[str, Any]:
    """{config key: a value of its type} of all keys whose type is known."""
    # Open sections hold the user's own keys, whose types are not known.
    keys = flatten(defaults.get_config().to_dict())
    examples = {key: restore_tuples(x) for key, x in keys.items() if not key.startswith(OPEN)}
    if denoiser in components.DENOISERS:  # otherwise the check of the config refuses it
        for name, default in components.denoiser_fields(denoiser).items():
            if type(default) in (bool, int, float, str, tuple):  # not every field has a default
                examples[config_key("denoiser", name)] = default
    return examples


def params_for(policy: ImportedPolicy, config: ConfigDict, spec: Spec) -> Params:
    """The policy's params, read from its tensors by the weight tables of the two networks.

    Raises UserError, with their names, for tensors that the networks do not have.
    """
    # Units, as the normalizer that becomes a part of the params.
    offsets = {key: offset for key, (offset, _) in policy.units.items()}
    scales = {key: scale for key, (_, scale) in policy.units.items()}
    normalizer = Normalizer(offsets, scales)
    expected = param_shapes(config, spec, normalizer)
    # One table for both networks, so that a tensor that neither has is found to be left over.
    table = []
    shapes = {}
    for item, network_table in (("encoder", policy.encoder), ("denoiser", policy.denoiser)):
        leaves = traverse_util.flatten_dict(expected[item])
        network_shapes = {path: leaf.shape for path, leaf in leaves.items()}
        for entry in network_table(network_shapes):
            table.append(entry._replace(path=(item, *entry.path)))
        shapes.update({(item, *path): shape for path, shape in network_shapes.items()})
    # An encoder without weights has no leaf in the result, but an item in the params.
    params = weight_map.params_from(policy.source, table, shapes, policy.tensors)
    return {"encoder": {}, **params, "normalizer": normalizer}


def param_shapes(config: ConfigDict, spec: Spec, normalizer: Normalizer) -> Params:
    """The params of the config's policy, as shapes; no number is computed."""
    policy = build.policy(config, normalizer, spec)
    observations = cameras.observation_shapes(spec, dataset.observed_steps(config))
    # A batch of one example.
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
    """The run folder, with one checkpoint of step 0.

    imported: where the weights came from, kept in the checkpoint's metadata.
    """
    with new_folder(out, "--run") as folder:
        write_config(folder, config, spec)
        # Averaged and raw weights are the same; the optimizer's state is empty.
        state = TrainState(np.int32(0), params, params, np.int32(0), {})
        with contextlib.closing(Checkpoints(folder)) as checkpoints:
            checkpoints.save(state, config=config.to_dict(), extra={"imported": imported})


def digest(source: Path) -> str:
    """sha256 of a file, or of all files in a folder, with a progress bar for large ones."""
    is_folder = source.is_dir()
    paths = sorted(path for path in source.iterdir() if path.is_file()) if is_folder else [source]
    total = sum(path.stat().st_size for path in paths)
    sha256 = hashlib.sha256()
    with tqdm(total=total, unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        for path in paths:
            if is_folder:  # so that two files that swap their names give another digest
                sha256.update(path.name.encode())
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    sha256.update(chunk)
                    bar.update(len(chunk))
    return sha256.hexdigest()


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """A list that gets the text of every warning that dpjax logs inside the block."""
    # A handler beside those that show the warnings: they are recorded and still shown.
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("dpjax")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
