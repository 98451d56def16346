"""Broken and hostile folders of .npz and .npy files."""

import pickle
import struct
import zipfile

from bad_inputs.case import CANARY, HUGE, Case, Payload, npy_header, zip_of_zeros
import numpy as np
from support import foreign_sets


def _npz(folder, change, *words, options=(), code=2):
    """A set of .npz files whose episodes `change` spoils."""
    episodes = foreign_sets.make_episodes()
    change(episodes)
    return Case(("arrays", foreign_sets.write_npz(folder / "set", episodes), *options), words, code)


def npz_of_pickled_objects(folder):
    def change(episodes):
        episodes[1]["state"] = np.array([Payload(folder)] * 12, object)

    return _npz(folder, change, "episode_1.npz: state: expected numbers, got pickled objects")


def npy_of_pickled_objects(folder):
    root = foreign_sets.write_npy(folder / "set")
    objects = np.array([Payload(folder)] * 12, object)
    np.save(root / "episode_1" / "state.npy", objects, allow_pickle=True)
    return Case(("arrays", root), ("episode_1/state.npy: expected numbers, got pickled objects",))


def npy_that_is_a_pickle(folder):
    root = foreign_sets.write_npy(folder / "set")
    (root / "episode_1" / "state.npy").write_bytes(pickle.dumps(Payload(folder)))
    return Case(("arrays", root), ("episode_1/state.npy: not a .npy file",))


def npy_header_with_code(folder):
    root = foreign_sets.write_npy(folder / "set")
    code = f"{{'descr': __import__('os').system('touch {folder / CANARY}'), 'shape': (1,)}}"
    raw = code.encode().ljust(118) + b"\n"
    path = root / "episode_1" / "state.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw)
    return Case(("arrays", root), ("episode_1/state.npy: not a .npy file",))


def npz_shapes_that_differ(folder):
    def change(episodes):
        episodes[1]["state"] = np.ones((12, 5), np.float32)

    words = "episode_1.npz: state: expected [4] per step, as in most, got [5]"
    return _npz(folder, change, words)


def npz_keys_that_differ(folder):
    def change(episodes):
        del episodes[1]["state"]

    words = "episode_1.npz: state: missing there"
    return _npz(folder, change, words)


def npz_lengths_that_differ(folder):
    def change(episodes):
        episodes[1]["state"] = episodes[1]["state"][:-1]

    return _npz(folder, change, "episode 1: 11 steps of state, where the action has 12")


def npz_nan(folder):
    def change(episodes):
        episodes[2]["action"][3, 6] = np.nan

    return _npz(folder, change, "episode 2, step 3, action[6]: expected finite numbers, got nan")


def npz_infinity(folder):
    def change(episodes):
        episodes[2]["state"][3, 1] = -np.inf

    return _npz(folder, change, "episode 2, step 3, state[1]: expected finite numbers, got -inf")


def npz_float64_beyond_float32(folder):
    def change(episodes):
        for episode in episodes:
            episode["state"] = episode["state"].astype(np.float64)
        episodes[1]["state"][2, 0] = 1e300

    return _npz(folder, change, "episode 1, state: step 2: expected a float32, got 1e+300")


def npz_empty_episode(folder):
    def change(episodes):
        episodes[1] = {key: x[:0] for key, x in episodes[1].items()}

    return _npz(folder, change, "episode 1, empty: expected at least 1 step, got 0")


def npz_images_chw(folder):
    def change(episodes):
        for episode in episodes:
            episode["camera"] = np.moveaxis(episode["camera"], -1, 1).copy()

    words = "camera can't be converted: images are uint8 [T, H, W, 3]", "transpose it"
    return _npz(folder, change, *words, options=("--keys", "camera"))


def npz_images_above_1(folder):
    def change(episodes):
        for episode in episodes:
            episode["camera"] = episode["camera"] / np.float32(100)

    return _npz(folder, change, "episode 0, camera: step 0: expected whole numbers from 0 to 255")


def npz_actions_that_are_words(folder):
    def change(episodes):
        for episode in episodes:
            episode["action"] = np.full(len(episode["action"]), "left")

    return _npz(folder, change, "action can't be converted", "only numbers are converted")


def npz_single_number(folder):
    def change(episodes):
        episodes[0]["goal"] = np.float32(3)

    return _npz(folder, change, code=0)


def npy_of_2_40_rows(folder):
    root = foreign_sets.write_npy(folder / "set")
    path = root / "episode_1" / "state.npy"
    path.write_bytes(npy_header((HUGE, 4)) + bytes(64))
    return Case(("arrays", root), ("episode_1/state.npy: expected 17592186044544 bytes", "got 192"))


def npz_bomb(folder):
    """4 GiB of zeros that are 4 MB of a zip, and headers that admit it."""
    root = foreign_sets.write_npz(folder / "set")
    rows = 36 * 2**20
    names = {}
    for key, x in foreign_sets.make_episodes()[0].items():
        header = npy_header((rows, *x.shape[1:]), x.dtype.str)
        names[f"{key}.npy"] = (header, rows * x[0].nbytes // 2**20)
    zip_of_zeros(root / "episode_1.npz", names)
    return Case(("arrays", root), ("episode 1: 37748736 steps", "at most 4 GiB"))


def npz_sizes_that_lie(folder):
    """The zip's directory claims what the header claims: 8 GiB, of which 64 bytes are there."""
    root = foreign_sets.write_npz(folder / "set")
    path = root / "episode_1.npz"
    head = npy_header((2**29, 4))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key in foreign_sets.make_episodes()[0]:
            archive.writestr(f"{key}.npy", head + bytes(64))
    raw = bytearray(path.read_bytes())
    true = struct.pack("<I", len(head) + 64)
    claimed = struct.pack("<I", 2**32 - 2)
    start = raw.index(b"PK\x01\x02")
    raw[start:] = raw[start:].replace(true, claimed)
    path.write_bytes(raw)
    return Case(("arrays", root), ("episode_1.npz: state.npy can't be read", "Copy it again"))


def npz_name_that_climbs(folder):
    root = foreign_sets.write_npz(folder / "set")
    with zipfile.ZipFile(root / "episode_1.npz", "a") as archive:
        archive.writestr(f"../../{CANARY}.npy", b"x")
    return Case(("arrays", root), ("episode_1.npz", f"'../../{CANARY}.npy'", "leads out of it"))


def npz_name_of_two_lines(folder):
    root = foreign_sets.write_npz(folder / "set")
    with zipfile.ZipFile(root / "episode_1.npz", "a") as archive:
        archive.writestr("sta\nte.npy", b"x")
    return Case(("arrays", root), ("episode_1.npz", "'sta\\nte.npy' is not a name"))


def npz_cut(folder):
    root = foreign_sets.write_npz(folder / "set")
    path = root / "episode_1.npz"
    path.write_bytes(path.read_bytes()[:-100])
    return Case(("arrays", root), ("episode_1.npz: not a zip file",))


def folder_without_arrays(folder):
    (folder / "set").mkdir()
    (folder / "set" / "notes.txt").write_text("none yet")
    return Case(("arrays", folder / "set"), ("set: expected .npz files, or folders of .npy",))


def arrays_of_both_kinds(folder):
    root = foreign_sets.write_npz(folder / "set")
    (root / "episode_7").mkdir()
    np.save(root / "episode_7" / "action.npy", np.ones((3, 2)))
    return Case(("arrays", root), ("episode_0.npz and episode_7/: expected either",))


def no_such_source(folder):
    return Case(("arrays", folder / "nowhere"), ("nowhere: no such file or directory",))
