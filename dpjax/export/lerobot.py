"""Writes a run as a policy folder that LeRobot loads.

    python -m dpjax.export lerobot --run runs/mine --out mine_lerobot [--sampler ddim --steps 10]

This works for U-Nets that observe numbers and cameras. If LeRobot's diffusion policy cannot
express a setting, the error names its config key. dpjax.import_weights reads the folder back, and
every weight is the same bit for bit.
"""

import argparse
import json
import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax.config.components import SCHEDULES
from dpjax.core.errors import UserError, choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.interop.imported import SettingError, Units
from dpjax.interop.lerobot import documents, reader, writer
from dpjax.runs import run as run_lib
from dpjax.runs.imported_run import settings_from_config, with_config_keys
from dpjax.runs.new_folder import new_folder

log = logging.getLogger("dpjax")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command-line arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.export lerobot", description="Write a run in LeRobot's layout."
    )
    parser.add_argument("--run", required=True, help="a run folder, or a shipped policy")
    parser.add_argument("--out", required=True, help="the folder to make; must not exist")
    # Which of the run's weights.
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw")
    parser.add_argument("--checkpoint", type=int, help="step (default: the newest good one)")
    # The sampler that LeRobot is to use.
    parser.add_argument("--sampler", choices=("ddpm", "ddim"), help="default: the run's")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    return parser.parse_args(argv)


def check(config: ConfigDict, spec: Spec) -> None:
    """Raises UserError, with the config key, for what LeRobot's policy cannot express."""
    # The noise levels that our sampler visits, to compare with those of LeRobot's.
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    path = schedule(config.schedule.num_levels).path(
        config.sampler.num_steps, config.sampler.spacing
    )
    levels = np.asarray(path.now.t)  # [S]
    # The writer knows settings but no config keys, which are added to its error here.
    try:
        writer.check(settings_from_config(config), spec.observations, levels)
    except SettingError as error:
        raise UserError(with_config_keys(error)) from error


def units_of(normalizer: Normalizer) -> Units:
    """{key: (offset, scale)} of the normalizer."""
    return {key: (normalizer.offset[key], normalizer.scale[key]) for key in normalizer.offset}


def files_of(config: ConfigDict, spec: Spec, params: Params) -> tuple[dict, dict]:
    """({file name: JSON}, {file name: tensors}) of the folder."""
    # LeRobot's features, and the statistics that express our normalizer.
    settings = settings_from_config(config)
    features, parts = writer.features_of(spec.observations, spec.action)
    stats = writer.stats_of(features, parts, units_of(params["normalizer"]))
    # The JSON files: the config, and the steps before and after the network.
    processors = documents.processors(features)
    jsons = {reader.CONFIG: documents.config_json(settings, features), **processors}
    # The tensors. As in LeRobot's own files, both processors have all statistics.
    tensors = dict.fromkeys(documents.state_files(processors), stats)
    tensors[reader.WEIGHTS] = writer.tensors_of(settings, features, params)
    return jsons, tensors


def write(out: Path, jsons: dict, tensors: dict) -> int:
    """Writes the folder; returns its size in bytes."""
    # The JSON is indented because people read these files.
    with new_folder(out, "--out") as folder:
        for name, content in jsons.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
        for name, arrays in tensors.items():
            writer.save(folder / name, arrays)
    return sum(path.stat().st_size for path in out.iterdir())


def log_differences(config: ConfigDict, spec: Spec) -> None:
    """Logs LeRobot's names of the observations, and whether old versions cannot load the run."""
    # A user of the folder must join the observations in this order.
    _, parts = writer.features_of(spec.observations, spec.action)
    for feature, keys in parts.items():
        sizes = ", ".join(f"{key} [{spec.numbers[key]}]" for key in keys)
        log.warning("%s holds %s", feature, sizes)
    # Old versions require a multiple of 2^levels, but the U-Net halves the steps once less.
    if config.horizon.predict % 2 ** len(config.denoiser.widths):
        log.warning(
            "LeRobot before 0.6 needs a horizon that can be halved once more; later ones take it"
        )


def main(argv: list[str] | None = None) -> int:
    """Checks that LeRobot can express the run, and writes the folder."""
    args = parse(argv)
    # Checked before the run is loaded, which takes a while.
    out = Path(args.out)
    if out.exists():
        raise UserError(f"--out {out} exists: give a new folder; nothing is overwritten.")
    run = run_lib.load(
        args.run,
        sampler=args.sampler,
        steps=args.steps,
        which=args.weights,
        step=args.checkpoint,
    )
    # Everything is checked and computed before a file is written.
    check(run.config, run.spec)
    jsons, tensors = files_of(run.config, run.spec, jax.device_get(run.params))
    # Write the folder, then log what its user should know.
    size = write(out, jsons, tensors)
    log_differences(run.config, run.spec)
    count = len(tensors[reader.WEIGHTS])
    print(f"{out}: step {run.step} of {args.run}, {count} tensors, {size:,} bytes")
    return 0
