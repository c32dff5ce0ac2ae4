"""Progress where there is no terminal: plain lines, for a training as for anything else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.core.progress import Reporter, Tracker
from groundup.core.stage import StageContext


def test_a_training_without_a_terminal_is_plain_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.core.progress.PLAIN_SECONDS", 0.0)
    out = StageContext(tmp_path, Reporter())
    with out.watch("pretrain", 4, start=2) as tracker:
        for step in (3, 4):
            out.log(step=step, loss=1.0)
            tracker.note("loss 1.000")
            tracker.advance()
    text = capsys.readouterr().err
    assert "pretrain: 3/4 steps · loss 1.000" in text
    assert "\x1b" not in text


def test_the_first_unit_which_may_compile_counts_in_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("groundup.core.progress.time.monotonic", lambda: now[0])
    tracker = Tracker(None, "pretrain", 100, "steps", 0)
    lines = []
    for seconds in (60.0, 1.0, 1.0, 1.0, 1.0):  # the first step takes a minute, the others one second each
        now[0] += seconds
        tracker.advance()
        lines.append(tracker.describe(now[0]))
    assert lines[:3] == ["1/100 steps", "2/100 steps", "3/100 steps"]
    assert lines[3:] == ["4/100 steps, 1.0 steps/s, 1:36 left", "5/100 steps, 1.0 steps/s, 1:35 left"]


def test_quiet_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = StageContext(tmp_path, Reporter(quiet=True))
    with out.watch("pretrain", 1) as tracker:
        out.log(step=1, loss=1.0)
        out.info("a word")
        tracker.advance()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


class Asked(Reporter):
    """Remembers the lines that a training was begun with."""

    def watch(
        self, label: str, total: float, unit: str, start: float, history: Sequence[dict[str, Any]]
    ) -> Any:
        self.history = list(history)
        return super().watch(label, total, unit, start, history)


def test_a_resumed_training_is_shown_with_what_it_logged_before(tmp_path: Path) -> None:
    StageContext(tmp_path, Reporter(quiet=True)).log(step=1, loss=2.0)
    reporter = Asked(quiet=True)
    with StageContext(tmp_path, reporter).watch("pretrain", 2, start=1) as tracker:
        tracker.advance()
    assert reporter.history == [{"step": 1, "loss": 2.0}]
