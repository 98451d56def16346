"""Broken and hostile robomimic files."""

from bad_inputs.case import HUGE, POINTER, Case
import h5py
import numpy as np
from support import foreign_sets


def _hdf5(folder, change=lambda file: None, options=(), words=()):
    """A robomimic file that `change` spoils."""
    path = foreign_sets.write_robomimic(folder / "demos.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    return Case(("robomimic", path, *options), ("demos.hdf5", *words))


def hdf5_cut_in_half(folder):
    case = _hdf5(folder, words=("not an HDF5 file, or truncated",))
    path = case.arguments[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return case


def hdf5_that_is_text(folder):
    case = _hdf5(folder, words=("not an HDF5 file, or truncated",))
    case.arguments[1].write_text("data: none")
    return case


def hdf5_pointer(folder):
    case = _hdf5(folder, words=("a Git LFS pointer",))
    case.arguments[1].write_text(POINTER)
    return case


def hdf5_unequal_lengths(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = np.ones((11, 4), np.float32)

    words = ("demo_1: expected 12 steps as of actions, got 11 of obs/state",)
    return _hdf5(folder, change, words=words)


def hdf5_num_samples_that_differ(folder):
    def change(file):
        file["data/demo_2"].attrs["num_samples"] = 8

    return _hdf5(folder, change, words=("demo_2: expected 7 steps", "got 8 of num_samples"))


def hdf5_missing_observation(folder):
    def change(file):
        del file["data/demo_1/obs/state"]

    words = ("/data/demo_1/obs/state: missing there",)
    return _hdf5(folder, change, words=words)


def hdf5_missing_actions(folder):
    def change(file):
        del file["data/demo_1/actions"]

    return _hdf5(folder, change, words=("/data/demo_1/actions: missing",))


def hdf5_link_into_another_file(folder):
    foreign_sets.write_robomimic(folder / "other.hdf5")

    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = h5py.ExternalLink("other.hdf5", "/data/demo_1/obs/state")

    words = ("/data/demo_1/obs/state: expected the data, got a link (ExternalLink)",)
    return _hdf5(folder, change, words=words)


def hdf5_links_in_a_circle(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = h5py.SoftLink("/data/demo_1/obs/other")
        file["data/demo_1/obs/other"] = h5py.SoftLink("/data/demo_1/obs/state")

    return _hdf5(folder, change, words=("expected the data, got a link (SoftLink)",))


def hdf5_group_in_itself(folder):
    def change(file):
        file["data/demo_1/obs/again"] = file["data/demo_1/obs"]

    return _hdf5(
        folder, change, ("--keys", "again"), ("/again: expected an array [T, ...], got a group",)
    )


def hdf5_objects(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        text = h5py.string_dtype()
        file["data/demo_0/obs"].create_dataset("state", data=["a"] * 5, dtype=text)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state: expected numbers, got objects",))


def hdf5_virtual_dataset(folder):
    np.ones((5, 4), np.float32).tofile(folder / "other.bin")

    def change(file):
        del file["data/demo_0/obs/state"]
        layout = h5py.VirtualLayout((5, 4), np.float32)
        layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "x", (5, 4))
        file["data/demo_0/obs"].create_virtual_dataset("state", layout)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "a reference to other files"))


def hdf5_numbers_in_another_file(folder):
    np.ones((5, 4), np.float32).tofile(folder / "other.bin")

    def change(file):
        del file["data/demo_0/obs/state"]
        file["data/demo_0/obs"].create_dataset(
            "state", (5, 4), np.float32, external=[(str(folder / "other.bin"), 0, 80)]
        )

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "a reference to other files"))


def hdf5_of_2_40_rows_never_written(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        file["data/demo_0/obs"].create_dataset("state", (HUGE, 4), np.float32, chunks=(1024, 4))

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "got 0 of 1073741824 chunks"))


def hdf5_never_written(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs"].create_dataset("state", (12, 4), np.float32)

    words = ("/data/demo_1/obs/state: expected [12, 4] float32, got 0 of 192 bytes", "as zeros")
    return _hdf5(folder, change, words=words)


def hdf5_chunk_of_8_gib(folder):
    def change(file):
        for i, n in enumerate(foreign_sets.LENGTHS):
            del file[f"data/demo_{i}/obs/state"]
            file[f"data/demo_{i}/obs"].create_dataset(
                "state", (n, 2**18), np.uint8, chunks=(2**14, 2**18), maxshape=(None, 2**18)
            )

    return _hdf5(folder, change, words=("/data/demo_0/obs/state", "more than 2 GiB"))


def hdf5_filter_key_missing(folder):
    words = ("--filter trian is not in mask/ of", "did you mean 'train'")
    return _hdf5(folder, options=("--filter", "trian"), words=words)


def hdf5_mask_of_a_demo_that_is_not_there(folder):
    def change(file):
        file["mask/all"] = np.array([b"demo_0", b"demo_9"])

    words = ("mask/all names demo_9",)
    return _hdf5(folder, change, options=("--filter", "all"), words=words)


def hdf5_shapes_that_differ(folder):
    def change(file):
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = np.ones((12, 5), np.float32)

    words = ("/data/demo_1/obs/state: expected [4] per step, as in most, got [5]",)
    return _hdf5(folder, change, words=words)


def hdf5_environment_that_is_no_json(folder):
    def change(file):
        file["data"].attrs["env_args"] = "{"

    return _hdf5(folder, change, words=("data: env_args: not JSON",))


def hdf5_no_demos(folder):
    def change(file):
        for i in range(3):
            del file[f"data/demo_{i}"]

    return _hdf5(folder, change, words=("expected at least 1 demo in data, got 0",))


def hdf5_actions_that_are_no_poses(folder):
    def change(file):
        for i, n in enumerate(foreign_sets.LENGTHS):
            del file[f"data/demo_{i}/actions"]
            file[f"data/demo_{i}/actions"] = np.ones((n, 6), np.float32)

    words = ("actions: --absolute expects floats [T, 7] or [T, 14]", "[None, 6]")
    return _hdf5(folder, change, options=("--absolute",), words=words)


def hdf5_spoilt_chunk(folder):
    def change(file):
        del file["data/demo_0/obs/state"]
        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        dataset = file["data/demo_0/obs"].create_dataset("state", data=x, compression=4)
        dataset.id.write_direct_chunk((0, 0), b"\x00\x01\x02\x03" * 20)

    return _hdf5(folder, change, words=("/data/demo_0/obs/state: can't be decoded",))
