"""A run's weights in LeRobot's layout.

    python -m dpjax.export_weights --run runs/mine --out mine_lerobot [--sampler ddim --steps 10]

For U-Nets that observe numbers and cameras. What LeRobot's diffusion policy can't express is
refused by the config's name for it. dpjax.import_weights reads the folder back, every
number of the networks as it was.
"""

import argparse
import json
import logging
import os
from pathlib import Path
import shutil

import jax
import numpy as np

from dpjax.config import build, flags
from dpjax.config.checks import flatten
from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.interop.lerobot import reader, writer
from dpjax.interop.lerobot import stats as stats_lib
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

log = logging.getLogger("dpjax")


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.export_weights", description="Write a run in LeRobot's layout."
    )
    parser.add_argument("--run", required=True, help="run folder that dpjax.train made")
    parser.add_argument("--out", required=True, help="the folder to make; must not exist")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema")
    parser.add_argument("--checkpoint", type=int, help="step (default: the newest good one)")
    parser.add_argument("--sampler", choices=("ddpm", "ddim"), help="default: the run's")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    return parser.parse_args(argv)


def write(out: Path, documents: dict, arrays: dict) -> int:
    """The folder, under a temporary name until it is whole; its bytes."""
    temporary = out.with_name(f".{out.name}.exporting-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for name, content in documents.items():
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n")
        for name, content in arrays.items():
            writer.save(temporary / name, content)
        os.rename(temporary, out)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sum(path.stat().st_size for path in out.iterdir())


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    out = Path(given.out)
    if out.exists():
        raise UserError(f"--out {out} exists: give a new folder; nothing is overwritten.")
    config, spec = read_config(given.run)
    config = build.sampling(config, sampler=given.sampler, steps=given.steps)
    settings = flatten(config.to_dict())
    schedule = errors.choose(build.SCHEDULES, config.schedule.name, "config.schedule.name")
    path = schedule(config.schedule.num_levels).path(
        config.sampler.num_steps, config.sampler.spacing
    )
    writer.check(settings, spec.observations, np.asarray(path.now.t))
    said = []
    params, step = checkpoint.load_params(
        given.run, which=given.weights, step=given.checkpoint
    )
    params = jax.device_get(params)
    features, parts = writer.features_of(spec.observations, spec.action)
    found = params["normalizer"]
    own = {key: (found.offset[key], found.scale[key]) for key in found.offset}
    stats, inexact = writer.stats_of(features, parts, own)
    documents = writer.processors(features)
    documents[reader.CONFIG] = writer.config_json(settings, features)
    arrays = {reader.WEIGHTS: writer.tensors_of(settings, features, params)}
    for name, kept in ((stats_lib.INPUTS, stats), (stats_lib.OUTPUTS, stats)):
        file = next(x["state_file"] for x in documents[name]["steps"] if "state_file" in x)
        arrays[file] = kept
    size = write(out, documents, arrays)
    for feature, keys in parts.items():
        said.append(f"{feature} holds {', '.join(f'{key} [{spec.numbers[key]}]' for key in keys)}")
    if config.horizon.predict % 2 ** len(config.denoiser.widths):
        said.append("LeRobot before 0.6 wants a horizon that halves once more; later ones take it")
    for text in (*said, *inexact):
        log.warning(text)
    print(
        f"{out}: step {step} of {given.run}, {len(arrays[reader.WEIGHTS])} tensors, {size:,} bytes"
    )
    return 0


if __name__ == "__main__":
    flags.run(main)
