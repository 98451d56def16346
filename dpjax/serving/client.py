"""A policy on another machine, as `sample_actions`.

    policy = dpjax.RemotePolicy("ws://robot-server:8000", token="…")
    controller = Controller(policy, observed=policy.observed, executed=policy.executed)
    action = controller.act(observation)

It samples what a local policy would: the keys are the caller's, and chunks are equal up to rounding
(bit-equal if the server's batch has the same size). Reading an answer has a time limit, and after
it the connection is closed: a late answer can never be taken for that of the next request.
"""

from collections.abc import Mapping
import contextlib
import time
from typing import Any

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.serving import wire

MAX_BYTES = 64 << 20  # of an answer
BACK_OFF = (0.1, 0.2, 0.5, 1.0)  # seconds before the next attempts to connect; the last repeats


class RemotePolicy:
    """`(rng, obs, previous=None, committed=None) -> actions [B, Tp, Da]` of a policy server."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 60.0,
    ):
        """url: ws://host:port, or wss:// with TLS.
        timeout: seconds that one answer may take.
        connect_timeout: seconds to wait for the server, at first and after it was lost.
        """
        if not url.startswith(("ws://", "wss://")):
            raise UserError(f"url {url}: expected ws://host:port or wss://host:port.")
        self.url = url
        self._headers = {"Dpjax-Protocol": str(wire.PROTOCOL)}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._socket: Any = None
        # The library's connections are context managers: closing the stack disconnects.
        self._stack = contextlib.ExitStack()
        self._metadata: dict[str, Any] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says about its policy; connects if necessary."""
        self._connect()
        return self._metadata

    @property
    def observed(self) -> int:
        """To."""
        return int(self.metadata["observed"])

    @property
    def executed(self) -> int:
        """Ta."""
        return int(self.metadata["executed"])

    def __call__(
        self,
        rng: Any,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da] in data units, see `CompiledPolicy.__call__`.

        rng: one key, keys [B], or their words uint32 [B, 2]; these need no jax here.

        Raises UserError for what the server refuses, and if it cannot be reached in time.
        """
        # Everything that has one entry per example goes into one tree, which is cut into parts.
        obs = {name: np.asarray(x) for name, x in obs.items()}
        batch_size = len(next(iter(obs.values())))
        optional = {"previous": previous, "committed": committed}
        values = {
            "obs": obs,
            "key": _key_data(rng, batch_size),
            **{name: np.asarray(x) for name, x in optional.items() if x is not None},
        }
        # In parts that the server takes: each example has its own key, so parts change nothing.
        size = int(self.metadata["max_batch"])
        parts = [_part(values, slice(i, i + size)) for i in range(0, batch_size, size)]
        return np.concatenate([self._ask({"endpoint": "plan", **part}) for part in parts])

    def close(self) -> None:
        """Disconnects; the next call connects again."""
        self._socket = None
        self._stack.close()

    def _ask(self, message: dict[str, Any]) -> np.ndarray:
        """The action chunks of one request."""
        self._connect()
        exceptions = extras.require("websockets.exceptions", extra="serve")
        try:
            self._socket.send(wire.pack(message))
            answer = self._socket.recv(timeout=self._timeout)
        except TimeoutError:
            # The answer may still come. It must not be read as that of the next request.
            self.close()
            raise UserError(
                f"{self.url}: no answer in {self._timeout:g} s; disconnected.", argument="timeout"
            ) from None
        except (exceptions.ConnectionClosed, OSError) as error:
            self.close()
            raise UserError(f"{self.url}: the connection was lost ({error}).") from None
        except BaseException:
            self.close()  # such as Ctrl-C between question and answer
            raise
        # Text is an error of this request; the connection is as good as before.
        if isinstance(answer, str):
            raise UserError(f"{self.url}: {answer}")
        return wire.unpack(answer, MAX_BYTES)["plan"]

    def _connect(self) -> None:
        """Connects if there is no connection, and tries again until `connect_timeout`."""
        if self._socket is not None:
            return
        until = time.monotonic() + self._connect_timeout
        attempt = 0
        while (reason := self._try_to_connect(until)) is not None:
            pause = BACK_OFF[min(attempt, len(BACK_OFF) - 1)]
            if time.monotonic() + pause > until:
                raise UserError(f"{self.url}: cannot connect ({reason}).")
            time.sleep(pause)
            attempt += 1
        # A server of openpi greets too, but has no endpoint `plan`.
        spoken = self._metadata.get("dpjax/protocol")
        if spoken != wire.PROTOCOL:
            self.close()
            text = "it names no protocol of dpjax" if spoken is None else f"it speaks {spoken}"
            raise UserError(f"{self.url}: {text}, this client speaks protocol {wire.PROTOCOL}.")

    def _try_to_connect(self, until: float) -> str | None:
        """Connects and reads the metadata; returns why that failed, None if it did not.

        Raises UserError for a reason that waiting does not change, such as a wrong token.
        """
        sync = extras.require("websockets.sync.client", extra="serve")
        exceptions = extras.require("websockets.exceptions", extra="serve")
        # No compression: it costs more than a local network, and images are large.
        connecting = {
            "additional_headers": self._headers,
            "compression": None,
            "max_size": MAX_BYTES,
            "open_timeout": self._timeout,
            "close_timeout": 1.0,
        }
        try:
            websocket = self._stack.enter_context(sync.connect(self.url, **connecting))
            # A server that is still warming up sends its first message afterwards.
            first = websocket.recv(timeout=max(self._timeout, until - time.monotonic()))
            self._metadata = wire.unpack(first, MAX_BYTES)
        except exceptions.InvalidStatus as error:
            # The server answered by HTTP and did not become a websocket.
            status = error.response.status_code
            reason = (error.response.body or b"").decode("utf-8", "replace").strip()
            if status != 503:  # "too many clients" may change
                raise UserError(f"{self.url}: HTTP {status}: {reason}.") from None
            return reason
        except (OSError, TimeoutError, exceptions.WebSocketException, wire.WireError) as error:
            self.close()
            return f"{type(error).__name__}: {error}"
        self._socket = websocket
        return None


def _part(tree: dict[str, Any], part: slice) -> dict[str, Any]:
    """The examples `part` of every array [B, ...] of a request."""
    cut = lambda x: _part(x, part) if isinstance(x, dict) else x[part]
    return {name: cut(x) for name, x in tree.items()}


def _key_data(rng: Any, batch_size: int) -> np.ndarray:
    """The words uint32 [B, 2] of one key per example."""
    if isinstance(rng, np.ndarray) and rng.dtype == np.uint32:
        return rng
    # Only typed keys need jax, which a robot's computer may not have.
    import jax

    if not jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key):
        raise UserError(
            f"rng must be made by jax.random.key, but these are {rng.dtype} numbers.",
            argument="rng",
        )
    if rng.ndim == 0:  # as `CompiledPolicy` does it
        rng = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, np.arange(batch_size))
    return np.asarray(jax.random.key_data(rng))
