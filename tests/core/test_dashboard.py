"""The dashboard: every frame fits its screen, and a real terminal is left as it was found."""

import fcntl
import io
import os
import re
import select
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.screen import Screen

from groundup.core.dashboard import CURVE_POINTS, Board, Curve, Dashboard, clock, dots, draw

SIZES = [(80, 24), (120, 40), (200, 60), (60, 16), (50, 12), (40, 8), (20, 4), (8, 2), (3, 1)]
MESSAGES = [
    "continuing pretrain at step 12 of 900",
    "a message that is much longer than any of these screens is wide " * 5,
    "\x1b[31mred\x1b[0m\tand a tab\rand a return",
    "日本語の文書が飛ばされました" * 12,
]


def board(steps: int) -> Board:
    """A training of which so many steps are logged, with everything that a step may say."""
    made = Board("pretrain", 900, "steps")
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 9 / step**0.3, "grad_norm": 1 / step, "lr_factor": 0.5,
                "tokens_per_second": 123_456.7, "memory_gb": 12.3, "flops_utilization": 0.61}  # fmt: skip
        made.add_line(line | ({"skipped": 1.0, "loss": "nan"} if step % 50 == 0 else {}))
        made.advance(step, now=2.0 * step)
        if step % 20 == 0:
            made.add_line({"step": step, "val_bpb": 3 / step**0.2})
    return made


def frame(shown: Dashboard, width: int, height: int) -> list[str]:
    """What rich puts on a screen of this size, colours and all."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    console.print(Screen(shown), end="")
    return plain(console.file.getvalue()).split("\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("steps", [0, 1, 2, 700])
def test_every_frame_fits_its_screen(width: int, height: int, steps: int) -> None:
    shown = Dashboard(Console(file=io.StringIO()), board(steps))
    for message in MESSAGES:
        shown.info(message)
    lines = frame(shown, width, height)
    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}
    drawn = draw(board(steps), width, height)
    assert len(drawn) <= height
    assert all(line.cell_len <= width for line in drawn)


def test_a_usual_screen_shows_all_that_one_wants_to_know() -> None:
    shown = Dashboard(Console(file=io.StringIO()), board(700))
    shown.info("continuing pretrain at step 12 of 900")
    screen = "\n".join(frame(shown, 80, 24))
    for part in ("pretrain", "step 700 of 900", "2.0 s/step · 6:40 left", "78%", f"{9 / 699**0.3:.4f}",
                 f"{3 / 700**0.2:.4f} bits/byte",
                 "0.001", "50.0% of peak", "123,457", "61.0%", "12.30 GB", "skipped steps  14", "●",
                 "step 1 to 700", "continuing pretrain at step 12 of 900"):  # fmt: skip
        assert part in screen, part


def test_the_curve_goes_where_the_values_are() -> None:
    values = [5.0, 1.0, 2.0, 8.0, 4.0, 4.0, 3.0, 1.0]
    rows = dots(values, cells=4, rows=2, low=0.0, high=8.0)
    bit = {(0, 0): 0, (1, 0): 1, (2, 0): 2, (3, 0): 6, (0, 1): 3, (1, 1): 4, (2, 1): 5, (3, 1): 7}
    lit = [
        [(ord(rows[y // 4][x // 2]) - 0x2800) >> bit[y % 4, x % 2] & 1 for x in range(8)] for y in range(8)
    ]
    heights = [7 - min(7, int(value)) for value in values]
    for x, y in enumerate(heights):
        reached = {heights[x - 1] if x else y, y}
        expected = [min(reached) <= row <= max(reached) for row in range(8)]
        assert [bool(lit[row][x]) for row in range(8)] == expected


def test_a_long_curve_keeps_its_shape_in_bounded_room() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(float(step))
    assert CURVE_POINTS <= len(curve.means) < 2 * CURVE_POINTS
    each = 100_000 // len(curve.means) + 1
    assert curve.means[0] == pytest.approx((each - 1) / 2, abs=each)
    steps_between = {round(b - a, 6) for a, b in zip(curve.means, curve.means[1:], strict=False)}
    assert len(steps_between) == 1


def test_the_rate_is_that_of_the_last_steps() -> None:
    made = Board("train", 1000, "steps")
    made.advance(0, now=0.0)
    made.advance(1, now=60.0)  # the first step compiles
    for step in range(2, 200):
        made.advance(step, now=60.0 + step)
        assert made.rate() == pytest.approx(1.0, rel=0.5) or step < 3
    assert made.rate() == pytest.approx(1.0)


def test_before_the_first_rate_the_headline_tells_what_is_done() -> None:
    board = Board("train", 1000, "steps", note="compiling kernels")
    board.advance(0, now=0.0)
    assert str(draw(board, 80, 12)[0]).rstrip().endswith("compiling kernels")
    board.advance(1, now=60.0)
    assert str(draw(board, 80, 12)[0]).rstrip().endswith("compiling kernels")
    board.advance(2, now=61.0)
    assert str(draw(board, 80, 12)[0]).rstrip().endswith("16:38 left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (62, "1:02"), (3599.7, "1:00:00"), (7323, "2:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


SCRIPT = """
    import os, sys, time
    from groundup.core.progress import Reporter
    reporter = Reporter()
    reporter.info("said before")
    with reporter.watch("pretrain", 40, "steps", 0, [{"step": 1, "loss": 9.0, "skipped": 1}]) as tracker:
        for step in range(1, 41):
            reporter.show({"step": step, "loss": 5 / step, "val_bpb": 2 / step})
            tracker.note(f"loss {5 / step:.3f}")
            tracker.advance()
            if step == 10:
                reporter.info("  said by the run")
                print("printed by a library", file=sys.stderr)
                with reporter.track("inner work", 3, "things") as inner:
                    inner.advance(3)
            if step == 20 and "fail" in sys.argv:
                raise SystemExit(3)
            time.sleep(float(os.environ.get("PAUSE", "0.04")))
    reporter.info("said after")
"""


def run_in_terminal(
    *arguments: str,
    width: int = 80,
    height: int = 24,
    resize: tuple[int, int] | None = None,
    **environment: str,
) -> tuple[int, str]:
    """Exit code, and everything that the script writes to a terminal of 80 x 24."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE")
    variables = {key: value for key, value in os.environ.items() if key not in unset}
    variables |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=variables
    )
    os.close(theirs)
    written, began = b"", time.monotonic()
    for data in read_all(ours):
        written += data
        if resize and written.count(HOME.encode()) > 2:
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", resize[1], resize[0], 0, 0))
            resize = None
        assert time.monotonic() - began < 60
    os.close(ours)
    return process.wait(timeout=10), written.decode()


def plain(written: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)


def read_all(terminal: int) -> Iterator[bytes]:
    while True:
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the other side is closed
                return
            if not data:
                return
            yield data
        else:
            yield b""


def newest_step(written: str) -> int:
    return max(map(int, re.findall(r"step (\d+) of 40", plain(written))))


ENTER, LEAVE, HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"


def test_a_terminal_shows_the_board_and_gets_its_lines_back() -> None:
    code, written = run_in_terminal()
    assert code == 0
    before, rest = written.split(ENTER)
    screen, after = rest.split(LEAVE)
    assert "said before" in before
    frames = screen.split(HOME)[1:]
    screen = plain(screen)
    assert "said by the run" in screen and "printed by a library" in screen
    assert newest_step(written) > 20
    assert re.search(r"skipped steps\s+1 ", screen)  # from the lines of before
    assert len(frames) >= 4
    assert all(frame.count("\n") <= 23 for frame in frames)
    said = [line.strip() for line in after.splitlines()]
    assert said[:2] == ["said by the run", "printed by a library"]
    assert re.fullmatch(r"pretrain: 40 steps in 0:0\d · loss 0.125", said[2])
    assert said[3] == "said after"


def test_a_resized_window_is_drawn_anew() -> None:
    _, written = run_in_terminal(resize=(60, 12))
    last = written.split(LEAVE)[0].split(HOME)[-1]
    lines = plain(last).split("\r\n")
    assert len(lines) == 12
    assert {len(line) for line in lines} == {60}


def test_without_colour_there_is_none() -> None:
    _, written = run_in_terminal(NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9|10)[0-7](?:;\d+)*m", written)
    assert newest_step(written) > 20


def test_a_training_that_dies_leaves_the_terminal_in_order() -> None:
    code, written = run_in_terminal("fail", PAUSE="0.005")
    assert code == 3
    assert written.count(ENTER) == written.count(LEAVE) == 1
    assert "said by the run" in written.split(LEAVE)[1]
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is shown again


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_that_cannot_show_it_gets_lines(environment: dict[str, str]) -> None:
    code, written = run_in_terminal(PAUSE="0", **environment)
    assert code == 0
    assert ENTER not in written and "said after" in written


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
        subprocess.run(command, stderr=log, check=True, env=os.environ | {"FORCE_COLOR": "", "PAUSE": "0"})
    text = (tmp_path / "log").read_text()
    assert "\x1b" not in text and "said by the run" in text
