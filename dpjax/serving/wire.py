"""openpi's messages: msgpack maps with numpy arrays in them, written plainly and read strictly.

An array is a map whose keys are bytes:

    {b"__ndarray__": True, b"data": bytes in C order, b"dtype": "<f4", b"shape": [2, 3]}

and a numpy scalar is {b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}. Keys that are text
are read too, since other languages send them.

What arrives from the network is not trusted. The size is compared before anything is parsed, dtypes
are taken from a list, and an array must have exactly the bytes of its shape. Whatever is wrong
raises `WireError` and nothing else. In particular the dtype "O" is refused: numpy would take the
bytes of the message for pointers.
"""

from collections.abc import Callable
import math
from typing import Any

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError

PROTOCOL = 1  # version of dpjax's extensions; openpi's own protocol has none
# Everything that an observation or an action can consist of: "<f4", "|u1", ….
DTYPES = frozenset(np.dtype(name).str for name in "u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8 b1".split())
MAX_DIMS = 6
MAX_KEYS = 256  # of one map
MAX_ITEMS = 4096  # of one list; also the characters of one text
# Lists and maps in one message. An empty one is 1 byte on the wire and 64 bytes in memory.
MAX_CONTAINERS = 4096


class WireError(UserError):
    """A message that is not one of this protocol."""


def pack(message: Any) -> bytes:
    """A message -> bytes. Raises WireError for values that the protocol cannot hold."""
    msgpack = extras.require("msgpack", extra="serve")
    try:
        return msgpack.packb(message, default=_encode)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"the message cannot be sent: {error}.") from None


def unpack(data: Any, max_bytes: int) -> dict[str, Any]:
    """The message, a map with text as keys, of at most `max_bytes` bytes.

    Its arrays are read-only and share the memory of `data`.

    Raises WireError for everything else.
    """
    msgpack = extras.require("msgpack", extra="serve")
    # 1. The type and the size, before a byte is parsed.
    if not isinstance(data, bytes):
        raise WireError("a text frame: messages are binary frames of msgpack.")
    if len(data) > max_bytes:
        raise WireError(
            f"a message of {len(data)} bytes, but at most {max_bytes} are read: send images in "
            "the size that the policy was trained with."
        )
    # 2. Parse. msgpack calls the hooks for every map and list, from the innermost outwards.
    count = _counter()
    try:
        message = msgpack.unpackb(
            data,
            object_hook=lambda entries: _decode(count(entries)),
            list_hook=count,
            strict_map_key=False,  # keys of arrays are bytes
            max_bin_len=max_bytes,
            max_str_len=MAX_ITEMS,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_KEYS,
            max_ext_len=0,  # no extension types
        )
    except WireError:
        raise
    # These are what msgpack raises for bytes that are not msgpack, or nested too deeply.
    except (
        *(ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError),
        *(msgpack.exceptions.UnpackException, MemoryError),
    ) as error:
        raise WireError(f"not a msgpack message ({type(error).__name__}).") from None
    # 3. The outermost value.
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise WireError("not a map of named values.")
    return message


def _counter() -> Callable[[Any], Any]:
    """A hook that returns its argument, and raises WireError after MAX_CONTAINERS calls."""
    left = MAX_CONTAINERS

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise WireError(f"more than {MAX_CONTAINERS} lists and maps in one message.")
        return value

    return count


def _encode(x: Any) -> dict[bytes, Any]:
    """What msgpack does not know itself: arrays and numpy's scalars."""
    if isinstance(x, np.ndarray) and x.dtype.str in DTYPES:
        data = np.ascontiguousarray(x).tobytes()
        return {b"__ndarray__": True, b"data": data, b"dtype": x.dtype.str, b"shape": x.shape}
    if isinstance(x, np.generic) and x.dtype.str in DTYPES:
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}
    name = f"dtype {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
    raise WireError(f"the message cannot be sent: it holds a value of {name}.")


def _decode(entries: dict[Any, Any]) -> Any:
    """A map of the message, or the array or scalar that it stands for."""
    if b"__ndarray__" in entries or "__ndarray__" in entries:
        return _array(_entry(entries, "data"), _dtype(entries), _entry(entries, "shape"))
    if b"__npgeneric__" in entries or "__npgeneric__" in entries:
        return _scalar(_entry(entries, "data"), _dtype(entries))
    return entries


def _entry(entries: dict[Any, Any], key: str) -> Any:
    """The value of a key that is bytes or text; None if it is missing."""
    return entries.get(key.encode(), entries.get(key))


def _dtype(entries: dict[Any, Any]) -> np.dtype:
    """The dtype of an array or a scalar."""
    name = _entry(entries, "dtype")
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    # Compared as text: numpy reads many spellings, some of them records or objects.
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"dtype {str(name)[:20]!r} is not one of {', '.join(sorted(DTYPES))}.")
    return np.dtype(name)


def _array(data: Any, dtype: np.dtype, shape: Any) -> np.ndarray:
    """The array of these bytes."""
    if not isinstance(data, bytes) or not isinstance(shape, (list, tuple)):
        raise WireError("an array without bytes or without a shape.")
    is_size = lambda n: type(n) is int and 0 <= n < 1 << 31  # bool is a kind of int
    if len(shape) > MAX_DIMS or not all(map(is_size, shape)):
        raise WireError(f"an array of shape {str(shape)[:60]}: at most {MAX_DIMS} sizes from 0 on.")
    # Python's integers do not overflow, so that no product of sizes can pretend to be small.
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"{len(data)} bytes for an array {dtype} {list(shape)}.")
    # Unlike `np.ndarray(buffer=…)`, `frombuffer` refuses dtypes that hold pointers.
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(number: Any, dtype: np.dtype) -> np.generic:
    """The numpy scalar of a number."""
    if not isinstance(number, (int, float)):
        raise WireError("a numpy scalar that is not a number.")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            value = dtype.type(number)
    except (OverflowError, ValueError, TypeError):
        raise WireError(f"{str(number)[:20]} is not a number of dtype {dtype}.") from None
    # A number beyond the range of float16 or float32 becomes infinite with a warning only.
    if isinstance(number, float) and math.isfinite(number) and not np.isfinite(value):
        raise WireError(f"{number} is not a number of dtype {dtype}.")
    return value
