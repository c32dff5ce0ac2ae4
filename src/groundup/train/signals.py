"""SIGINT and SIGTERM as a wish that a loop grants when it's ready.

in:  signals of the process
out: a list that the loop looks at; then the process ends as if nobody had caught them
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that holds the number of SIGINT or SIGTERM once one came; a second one acts at once."""
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
    """Raise what ends the process with exit status 130 or 143."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
