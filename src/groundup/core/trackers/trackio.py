"""trackio: a local database that `trackio show` displays. No account, no network.

Its folder is trackio's own (`TRACKIO_DIR`, by default in Hugging Face's cache); the project is `groundup`.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from groundup.core.trackers import Point, Run

PROJECT = "groundup"


class Trackio:
    """One run of the local project."""

    def __init__(self, run: Run) -> None:
        self._info, self._name = run, run.title
        self._run: Any = None

    def begin(self, history: Sequence[Point]) -> None:
        """Delete the earlier run of this name, and write the history to a new one."""
        trackio = import_module("trackio")
        self.close()
        with _silent():
            with contextlib.suppress(ValueError):  # the project doesn't exist yet
                for run in trackio.Api().runs(PROJECT):
                    if run.name == self._name:
                        run.delete()
            self._run = trackio.init(
                PROJECT,
                name=self._name,
                group=self._info.group or None,
                config=dict(self._info.config),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        for point in history:
            self.log(point)

    def log(self, point: Point) -> None:
        """One row."""
        self._run.log(dict(point.values), step=point.step)

    def close(self) -> None:
        """Flush to the database."""
        if self._run is not None:
            with _silent():
                self._run.finish()
            self._run = None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Hides trackio's messages on stdout, which is for data."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


KIND = Trackio
