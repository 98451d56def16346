"""Hostile and broken data sets. Each function writes one into a folder and returns its Case."""

from bad_inputs import data_arrays, data_hdf5, data_lerobot, data_rlds, data_zarr

MODULES = (data_zarr, data_hdf5, data_lerobot, data_arrays, data_rlds)
MAKERS = [
    make
    for module in MODULES
    for name, make in vars(module).items()
    if getattr(make, "__module__", "") == module.__name__ and not name.startswith("_")
]
