"""Writes files as torch.save does, without torch: pickle instructions by hand, in a zip.

`Call` and `Name` stand for what a pickle calls and mentions; nothing here calls or imports it.
"""

import io
import struct
from typing import Any, NamedTuple
import zipfile

import numpy as np

STORAGES = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}
STORAGES |= {"bool": "Bool", "bfloat16": "BFloat16", "int32": "Int"}


class Name(NamedTuple):
    """A name that a pickle mentions."""

    name: str


class Call(NamedTuple):
    """A call that a pickle makes; state: the attributes that it sets afterwards."""

    name: str
    args: tuple = ()
    state: Any = None


class Tensor(NamedTuple):
    """A tensor with a description that may be wrong; None stands for the right one."""

    array: np.ndarray
    kind: str | None = None
    count: int | None = None
    offset: Any = 0
    shape: Any = None
    strides: Any = None
    key: str | None = None


class Raw(NamedTuple):
    """Instructions that are written as they are."""

    code: bytes


def node(value):
    """A value inside an OmegaConf config."""
    if isinstance(value, dict):
        content = {key: node(x) for key, x in value.items()}
        return Call("omegaconf.dictconfig.DictConfig", (), {"_content": content})
    if isinstance(value, (list, tuple)):
        content = [node(x) for x in value]
        return Call("omegaconf.listconfig.ListConfig", (), {"_content": content})
    return Call("omegaconf.nodes.AnyNode", (), {"_val": value})


def pickled(value, stored: dict) -> bytes:
    """The instructions that build a value; the arrays in it are put into `stored`."""
    out = io.BytesIO()
    out.write(b"\x80\x02")
    _emit(out.write, value, stored)
    out.write(b".")
    return out.getvalue()


def _emit(write, x, stored):
    if isinstance(x, np.ndarray):
        x = Tensor(x)
    if isinstance(x, Raw):
        write(x.code)
    elif isinstance(x, Name):
        module, _, name = x.name.rpartition(".")
        write(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
    elif isinstance(x, Call):
        _emit(write, Name(x.name), stored)
        _emit(write, tuple(x.args), stored)
        write(b"R")
        if x.state is not None:
            _emit(write, x.state, stored)
            write(b"b")
    elif isinstance(x, Tensor):
        _emit_tensor(write, x, stored)
    elif isinstance(x, dict):
        write(b"}(")
        for key, value in x.items():
            _emit(write, key, stored)
            _emit(write, value, stored)
        write(b"u")
    elif isinstance(x, (list, tuple)):
        write(b"](" if isinstance(x, list) else b"(")
        for value in x:
            _emit(write, value, stored)
        write(b"e" if isinstance(x, list) else b"t")
    else:
        write(_literal(x))


def _literal(x) -> bytes:
    if x is None or isinstance(x, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[x]
    if isinstance(x, int):
        data = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    data = x.encode() if isinstance(x, str) else x
    return (b"X" if isinstance(x, str) else b"B") + struct.pack("<I", len(data)) + data


def _emit_tensor(write, x, stored):
    array = np.ascontiguousarray(x.array).reshape(np.shape(x.array))
    key = x.key or str(len(stored))
    stored.setdefault(key, array.tobytes())
    kind = x.kind or f"torch.{STORAGES[array.dtype.name]}Storage"
    count = array.size if x.count is None else x.count
    strides = tuple(s // array.itemsize for s in array.strides) if x.strides is None else x.strides
    shape = array.shape if x.shape is None else x.shape
    _emit(write, Name("torch._utils._rebuild_tensor_v2"), stored)
    write(b"(")
    _emit(write, ("storage", Name(kind), key, "cpu", count), stored)
    write(b"Q")
    for value in (x.offset, shape, strides, False):
        _emit(write, value, stored)
    _emit(write, Call("collections.OrderedDict"), stored)
    write(b"tR")


def save(path, value, *, order=b"little", entries=None, root="archive"):
    """Writes a value as torch.save would. entries: {name: bytes} in addition."""
    stored = {}
    code = value.code if isinstance(value, Raw) else pickled(value, stored)
    files = {"data.pkl": code, "byteorder": order}
    files.update({f"data/{key}": data for key, data in stored.items()})
    files["version"] = b"3\n"
    files.update(entries or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name, data in files.items():
            out.writestr(f"{root}/{name}", data)
    return path
