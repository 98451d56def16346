"""Makes pusht_replay.npz: the first 60 steps of one human episode, as recorded in 2023.

python tests/golden/make_pusht_replay.py PATH/pusht_cchi_v7_replay.zarr
"""

from pathlib import Path
import sys

import numpy as np
import zarr

EPISODE, STEPS = 3, 60

data = zarr.open(sys.argv[1], mode="r")
start = int(data["meta/episode_ends"][EPISODE - 1])
rows = slice(start, start + STEPS + 1)
np.savez_compressed(
    Path(__file__).with_name("pusht_replay.npz"),
    state=data["data/state"][rows],
    action=data["data/action"][rows][:-1],
    keypoint=data["data/keypoint"][rows],
)
