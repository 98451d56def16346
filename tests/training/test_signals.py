"""Signals: the first one is remembered, the second one kills."""

import os
import signal

import pytest

from dpjax.training.signals import Signals, Stopped


def test_the_second_signal_kills():
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals()
    signals.listen()
    try:
        signals.stop_if_received()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        for number in (signal.SIGTERM, signal.SIGINT):
            assert signal.getsignal(number) is signal.SIG_DFL
        with pytest.raises(Stopped):
            signals.stop_if_received()
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGTERM) == before
