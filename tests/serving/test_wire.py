"""Messages come back as they were, and damaged ones raise one kind of error."""

import msgpack
import numpy as np
import pytest

from dpjax.serving import wire
from experiments.serving import messages

LIMIT = 1 << 20


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u8", "i8", "f2", "f4", "f8", "b1"])
def test_arrays_come_back(dtype):
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    y = wire.unpack(wire.pack({"x": x, "n": {"y": x[:, ::2]}}), LIMIT)
    assert y["x"].dtype == x.dtype
    np.testing.assert_array_equal(y["x"], x)
    np.testing.assert_array_equal(y["n"]["y"], x[:, ::2])


def test_scalars_texts_and_lists_come_back():
    message = {"a": np.float32(0.5), "b": 3, "c": "push", "d": [1, 2.5], "e": None, "f": b"\x89PNG"}
    assert wire.unpack(wire.pack(message), LIMIT) == message


def test_keys_that_are_text_are_read_too():
    entries = {key.decode(): value for key, value in messages.array().items()}
    np.testing.assert_array_equal(
        wire.unpack(msgpack.packb({"x": entries}), LIMIT)["x"], np.zeros(3)
    )


def test_an_array_is_written_as_openpi_writes_it():
    """The bytes that openpi-client 0.1.2 makes of this array, recorded."""
    recorded = bytes.fromhex(
        "81a17884c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040"
        "c4056474797065a33c6634c405736861706591"
        "02"
    )
    assert wire.pack({"x": np.array([1, 2], np.float32)}) == recorded


@pytest.mark.parametrize("value", [np.array([object()]), np.array([1j]), object(), {1, 2}])
def test_what_cannot_be_sent_is_refused(value):
    with pytest.raises(wire.WireError, match="cannot be sent"):
        wire.pack({"x": value})


@pytest.mark.parametrize("value", [v for v in messages.HOSTILE], ids=str)
def test_hostile_arrays_are_refused(value):
    with pytest.raises(wire.WireError):
        wire.unpack(msgpack.packb({"x": [{"y": value}]}), LIMIT)


@pytest.mark.parametrize(
    "data, message",
    [
        ("text", "a text frame"),
        (b"\0" * 101, "101 bytes, but at most 100"),
        (b"", "not a msgpack message"),
        (b"\xc7\x01\x05x", "not a msgpack message"),  # an extension type
        (messages.DEEP[:99], "not a msgpack message"),
        (msgpack.packb([1, 2]), "not a map"),
        (msgpack.packb({1: 2}), "not a map"),
    ],
)
def test_other_messages_are_refused(data, message):
    with pytest.raises(wire.WireError, match=message):
        wire.unpack(data, 100)


def test_a_small_message_cannot_fill_the_memory():
    bomb = b"\x81\xa1x" + b"\xdc\x0f\xff" + (b"\xdc\x0f\xff" + b"\x90" * 4095) * 4095
    with pytest.raises(wire.WireError, match="lists and maps"):
        wire.unpack(bomb, 32 << 20)


def test_ten_thousand_mutated_messages_raise_nothing_else():
    refused = 0
    for data in messages.mutated(10_000):
        try:
            wire.unpack(data, LIMIT)
        except wire.WireError:
            refused += 1
    assert 7_000 < refused < 10_000  # some edits change a number only
