"""Training pieces are bounded, and texts without long runs reach the trainer as they are."""

import random
import time

import pytest

from groundup.tokens.bpe import MAX_RUN, cut_runs, train

DRAW = random.Random(3)
RUNS = {
    "letters": "".join(DRAW.choice("abcdefghij") for _ in range(900_000)),
    "signs": "".join(DRAW.choice("-=+*#_") for _ in range(900_000)),
    "blanks": " \t" * 450_000,
    "line ends": "\n" * 900_000,
    "ideographs": "".join(chr(DRAW.randrange(0x4E00, 0x5000)) for _ in range(100_000)),
    "around words": "word " + "x" * 900_000 + " word\n" + "-" * 900_000,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_long_run_is_trained_on_in_bounded_time(name: str) -> None:
    start = time.monotonic()
    train(iter([RUNS[name], "hello world"]), 600)
    assert time.monotonic() - start < 15
    pieces = cut_runs(RUNS[name])
    assert "".join(pieces) == RUNS[name] and len(pieces) > 1
    assert max(len(word) for piece in pieces for word in piece.split(" ")) <= MAX_RUN + 5


def test_ordinary_text_is_not_cut() -> None:
    text = (
        ("The lamp, the ship; the 12345 and 漢字かな!\n\n" * 400) + "x" * MAX_RUN + " " + "=" * MAX_RUN + "  "
    )
    assert cut_runs(text) == [text] and cut_runs("") == [""]
