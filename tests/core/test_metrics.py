"""metrics.jsonl: what is logged is what is read, and what was rewound is gone everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from groundup.core.metrics import MetricsLog, read_metrics
from groundup.core.trackers import Background, Point


class Kept:
    """A tracker that keeps what it was told."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.begun = 0

    def begin(self, history: Sequence[Point]) -> None:
        self.points = list(history)
        self.begun += 1

    def log(self, point: Point) -> None:
        self.points.append(point)

    def close(self) -> None:
        self.points.append(Point(-1, {"closed": 1.0}))


def test_numbers_of_every_kind_come_back_as_they_are_returned(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    line = log.log(
        step=1, loss=torch.tensor(2.5), rate=np.float32(0.5), bad=torch.tensor(float("inf")), note="x"
    )
    assert line == {"step": 1, "loss": 2.5, "rate": 0.5, "bad": "inf", "note": "x"}
    assert read_metrics(tmp_path / "metrics.jsonl") == [line]


def test_a_rewind_reaches_the_file_the_caller_and_the_trackers(tmp_path: Path) -> None:
    path, kept = tmp_path / "metrics.jsonl", Kept()
    first = MetricsLog(path)
    for step in (1, 2, 3):
        first.log(step=step, loss=float(step))
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    log = MetricsLog(path, [Background("kept", kept, print)])
    assert log.rewind(2) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]
    log.log(step=3, loss=9.0)
    log.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 2.0, 9.0]
    assert kept.points == [Point(1, {"loss": 1.0}), Point(2, {"loss": 2.0}), Point(3, {"loss": 9.0}),
                           Point(-1, {"closed": 1.0})]  # fmt: skip
    assert kept.begun == 1


def test_a_rewind_of_nothing_begins_an_empty_run(tmp_path: Path) -> None:
    kept = Kept()
    log = MetricsLog(tmp_path / "metrics.jsonl", [Background("kept", kept, print)])
    assert log.rewind(0) == []
    log.close()
    assert kept.points == [Point(-1, {"closed": 1.0})]
    assert kept.begun == 1
    assert not (tmp_path / "metrics.jsonl").exists()
