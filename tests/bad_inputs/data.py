"""Hostile and broken data sets: each function makes one in a folder, and returns a Case."""

from bad_inputs import data_arrays, data_hdf5, data_lerobot, data_rlds, data_zarr

MODULES = (data_zarr, data_hdf5, data_lerobot, data_arrays, data_rlds)
MADE = [
    make
    for module in MODULES
    for name, make in vars(module).items()
    if getattr(make, "__module__", "") == module.__name__ and not name.startswith("_")
]
