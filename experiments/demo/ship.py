"""Makes a run the policy that comes with dpjax: its averaged weights, in half precision.

The config and the limits of its demonstrations come with it.

make demo && python -m experiments.demo.ship --run runs/demo --name pusht_demo
"""

import argparse
import json
from pathlib import Path

from dpjax.robot import limits as limits_lib
from dpjax.runs import config_file, limits_file, shipped
from dpjax.training import checkpoint

LARGEST = 8 * 10**6  # bytes that a wheel should carry for it


def main() -> None:
    """Writes config.json and params.safetensors into dpjax/runs/policies/NAME."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.ship")
    parser.add_argument("--run", type=Path, required=True, help="run folder of dpjax.train")
    parser.add_argument("--name", required=True, help="the name that dpjax.load will know")
    args = parser.parse_args()
    directory = shipped.FOLDER / args.name
    directory.mkdir(parents=True, exist_ok=True)
    params, step = checkpoint.load_params(args.run)
    shipped.save_params(directory, params, step)
    config = json.loads((args.run / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    limits = limits_file.read(args.run, config_file.read_config(args.run)[0])
    content = json.dumps(limits_lib.to_json(limits), indent=1)
    (directory / limits_file.NAME).write_text(content + "\n")
    size = (directory / shipped.PARAMS).stat().st_size
    assert size <= LARGEST, f"{size} bytes are more than {LARGEST}"
    print(f"{directory}: step {step}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
