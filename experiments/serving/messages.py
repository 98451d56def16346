"""Messages that a server must survive: arrays that lie about themselves, and random edits."""

from collections.abc import Iterator
import random

import msgpack
import numpy as np

from dpjax.serving import wire


def array(**changes) -> dict:
    """An array on the wire, three float32, with some of its entries replaced."""
    entries = {"__ndarray__": True, "data": b"\0" * 12, "dtype": "<f4", "shape": [3]}
    return {key.encode(): value for key, value in {**entries, **changes}.items()}


# Arrays that must not be believed.
HOSTILE = (
    array(dtype="|O"),
    array(dtype="O"),
    array(dtype="<c8"),
    array(dtype="|V4"),
    array(dtype="<f4,<f4"),
    array(dtype=None),
    array(dtype=["a"]),
    array(shape=[-1]),
    array(shape=[2**40]),
    array(shape=[0]),
    array(shape=[2**31, 2**31, 2**31]),
    array(shape=[1, 1, 1, 1, 1, 1, 3]),
    array(shape=[True, 3]),
    array(shape=3),
    array(data="abc"),
    array(data=b"\0" * 11),
    {b"__npgeneric__": True, b"dtype": "|u1", b"data": 2**60},
    {b"__npgeneric__": True, b"dtype": "<f2", b"data": 1e300},
    {b"__npgeneric__": True, b"dtype": "<f4", b"data": [1]},
    {b"__ndarray__": 1},
)
DEEP = b"\x81\xa1k" * 2000 + b"\xc0"
GOOD = wire.pack(
    {
        "state": np.float32([1, 2, 3]),
        "image": np.zeros((8, 6, 3), np.uint8),
        "prompt": "x",
        "n": {"a": [1, 2.5, None]},
    }
)


def mutated(number: int, seed: int = 0) -> Iterator[bytes]:
    """`number` messages: hostile arrays in nested maps, and a good message with random edits."""
    rng = random.Random(seed)
    for i in range(number):
        if i % 3 == 0:
            value = rng.choice(HOSTILE)
            for _ in range(rng.randrange(4)):
                value = {"k": value, 1: [value]}
            yield msgpack.packb({rng.choice(["state", "obs", "key"]): value})
        elif i % 5000 == 1:
            yield DEEP
        else:
            yield edited(rng)


def edited(rng: random.Random) -> bytes:
    """The good message with some bytes replaced, removed, inserted or cut off."""
    data = bytearray(GOOD)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            del data[at:]
    return bytes(data)
