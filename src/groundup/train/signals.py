"""Deferred SIGINT/SIGTERM: the loop polls a flag and exits at a step boundary.

in:  signals of the process
out: a list that the loop polls; an exit with the usual status
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that receives the number of the first SIGINT or SIGTERM; a second signal acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in handled}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: Any) -> None:
        received.append(number)
        restore()

    for number in handled:
        signal.signal(number, ask)
    try:
        yield received
    finally:
        restore()


def exit_for_signal(number: int) -> None:
    """Raise the exception that ends the process with exit status 130 or 143."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
