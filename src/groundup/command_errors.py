"""End of a command: every mistake and every error of the system becomes one message and an exit status.

in:  the exceptions of a command
out: a message on stderr; status 2 for the user's mistakes and errors of the system, 130 and 143 for interruptions
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from cyclopts import CycloptsError

from groundup.core.errors import GroundupError
from groundup.core.os_errors import explain


@contextmanager
def report_errors(resumes: bool = False) -> Iterator[None]:
    """Run a command. Raises SystemExit with its status; errors of the program itself keep their traceback.

    resumes: whether the command goes on after an interruption when it is run again.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # None where the shell closed it
                sys.stdout.flush()  # an error of stdout at the end of the process would print a traceback
    except (GroundupError, CycloptsError) as error:
        _exit(str(error), 2)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if code in (130, 143):
            hint = ". Run the same command again to resume" if resumes else ""
            _exit(f"interrupted{hint}.", code, "\n")
        sys.exit(code)
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(0)
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        _exit(str(explained), 2)


def _exit(message: str, status: int | str | None, before: str = "") -> None:
    """Print the message and raise SystemExit, also where stdout or stderr can't be written."""
    with suppress(OSError, ValueError):
        print(f"{before}groundup: {message}", file=sys.stderr, flush=True)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)
    sys.exit(status)


def _discard(stream: TextIO) -> None:
    """Send what a stream that can't be written still holds to nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
