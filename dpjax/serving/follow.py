"""Serves newer versions of a policy as they appear; a bad one changes nothing."""

from collections.abc import Callable, Hashable
import logging
import threading
import time

from dpjax.core.errors import UserError
from dpjax.serving import batching
from dpjax.serving.batching import Version
from dpjax.serving.connection import one_line
from dpjax.serving.service import Service

POLL = 2.0  # seconds between two looks

log = logging.getLogger("dpjax")


class Follower(threading.Thread):
    """Looks for newer versions. Each is loaded, tried and compiled beside the running one.

    An episode keeps the version that it began with: a client gets the new one at its next reset
    or connection.
    """

    def __init__(
        self,
        service: Service,
        newest: Callable[[], Hashable | None],
        load: Callable[[Hashable], Version],
        *,
        current: Hashable,
        seconds: float = POLL,
    ):
        """newest: names the newest version that there is, such as a training step; None for none.
        load: loads and verifies that version; raises UserError if it must not be served.
        current: the name of the version that is served now.
        """
        super().__init__(name="follow", daemon=True)
        self._service = service
        self._newest = newest
        self._load = load
        self._current = current
        self._refused: set[Hashable] = set()
        self._seconds = seconds

    def run(self) -> None:
        """Looks again and again."""
        # A daemon: it ends with the process, whatever it is doing.
        while True:
            time.sleep(self._seconds)
            self.look()

    def look(self) -> bool:
        """Looks once; returns whether a newer version is served from now on."""
        name: Hashable = None
        try:
            name = self._newest()
            if name is None or name == self._current or name in self._refused:
                return False
            version = self._load(name)
            service = self._service
            # Compiled and tried before a client gets it. The worker goes on meanwhile.
            batching.warm_up(version, service.contract.obs_shapes, service.worker.max_batch)
        except Exception as error:  # whatever is wrong with it, the old version stays
            # Not tried again: a damaged checkpoint would be loaded every two seconds.
            self._refused.add(name)
            self._service.counts.add("versions_refused")
            reason = one_line(error)
            if not isinstance(error, UserError):
                reason = f"{type(error).__name__}: {reason}"
            log.warning("%s is not served (%s): %s stays", name, reason, self._current)
            return False
        log.info("%s is served from the next episodes on, in place of %s", name, self._current)
        self._current = name
        # One assignment: an episode that begins sees the old version or the new one.
        service.version = version
        service.counts.add("versions")
        return True
