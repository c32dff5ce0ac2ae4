"""Trackers hold exactly the points of metrics.jsonl, and their trouble is never the run's."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.core.builder import Builder
from groundup.core.errors import GroundupError
from groundup.core.metrics import MetricsLog, read_metrics
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext, stage
from groundup.core.store import Store
from groundup.core.trackers import Background, Point, Run, TrackerName, open_trackers, points, require

PATIENCE = 60.0
CONFIG = {"recipe": {"lr": 0.01, "optimizer": {"use": "muon"}}, "runtime": {"threads": 2}}


def opened(name: TrackerName, folder: Path) -> list[Background]:
    """One tracker, with all the time it needs to write."""
    run = Run("train-1234", folder / "trackers", "mine", "pretrain", CONFIG)
    trackers = open_trackers([name], run, print)
    for tracker in trackers:
        tracker._close_seconds = PATIENCE
    return trackers


def interrupted_training(folder: Path, name: TrackerName) -> list[dict[str, Any]]:
    """Six steps, of which a resumed process takes the last three again; what metrics.jsonl then holds."""
    path = folder / "metrics.jsonl"
    first = MetricsLog(path, opened(name, folder))
    for step in range(1, 7):
        first.log(step=step, loss=10.0 / step, speed=float("inf"))
        if step == 4:
            first.log(step=step, **{"val_bpb": 1.5, "update_ratio/mlp": 0.001})
    first.close()
    second = MetricsLog(path, opened(name, folder))
    second.rewind(3)
    for step in range(4, 9):
        second.log(step=step, loss=20.0 / step)
    second.close()
    return read_metrics(path)


def expected(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if key != "step" and isinstance(value, float):
                found.setdefault(key, []).append((line["step"], value))
    return found


@pytest.fixture
def lines_of_a_resumed_run(tmp_path: Path) -> list[dict[str, Any]]:
    return interrupted_training(tmp_path, "tensorboard")


def test_tensorboard_shows_every_point_once(
    tmp_path: Path, lines_of_a_resumed_run: list[dict[str, Any]]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / "train-1234"))
    board.Reload()
    wanted = expected(lines_of_a_resumed_run)
    assert [step for step, _ in wanted["loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(board.Tags()["scalars"]) == set(wanted)
    for name, series in wanted.items():
        found = [(event.step, event.value) for event in board.Scalars(name)]
        assert found == [(step, pytest.approx(value)) for step, value in series]
    texts = {name: board.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
             for name in ("run", "config")}  # fmt: skip
    assert texts["run"] == "mine/pretrain-1234"
    assert json.loads(texts["config"]) == CONFIG


def test_an_open_tensorboard_forgets_what_was_rewound(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, opened("tensorboard", tmp_path))
    for step in range(1, 7):
        log.log(step=step, loss=10.0 / step)
    log.close()
    board = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / "train-1234"))
    board.Reload()
    log = MetricsLog(path, opened("tensorboard", tmp_path))
    log.rewind(3)
    log.log(step=4, loss=7.0)
    log.close()
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4]


def test_trackio_holds_every_point_once(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    # A process of its own, since trackio decides where its database lies when it is imported.
    script = (
        f"import test_trackers, pathlib; test_trackers.check_trackio(pathlib.Path({os.fspath(tmp_path)!r}))"
    )
    modules = os.pathsep.join([os.fspath(Path(__file__).parent), *sys.path])
    variables = {"TRACKIO_DIR": os.fspath(tmp_path / "db"), "PYTHONPATH": modules}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def check_trackio(folder: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    wanted = expected(interrupted_training(folder, "trackio"))
    runs = SQLiteStorage.get_run_records("groundup")
    assert [run["name"] for run in runs] == ["mine/pretrain-1234"]
    rows = SQLiteStorage.get_logs("groundup", "mine/pretrain-1234", run_id=runs[0]["id"])
    config = SQLiteStorage.get_run_config("groundup", "mine/pretrain-1234", run_id=runs[0]["id"])
    assert config is not None and {key: config[key] for key in CONFIG} == CONFIG
    assert config["_Group"] == "mine"
    for name, series in wanted.items():
        assert sorted((row["step"], row[name]) for row in rows if name in row) == series


def test_an_offline_wandb_run_holds_every_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wanted = expected(interrupted_training(tmp_path, "wandb"))
    files = list((tmp_path / "trackers").rglob("*.wandb"))
    assert len(files) == 1
    deadline = time.monotonic() + PATIENCE  # wandb's own process may still write when the run is finished
    while wandb_history(files[0]) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert wandb_history(files[0]) == wanted
    runs = [record.run for record in wandb_records(files[0]) if record.HasField("run")]
    assert [(run.run_id, run.display_name, run.run_group) for run in runs] == [
        ("train-1234", "mine/pretrain-1234", "mine")
    ]
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert {key: config[key] for key in CONFIG} == CONFIG


def wandb_history(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The points in a .wandb file."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in wandb_records(path):
        items = record.history.item
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        for name, value in values.items():
            if not name.startswith("_"):
                found.setdefault(name, []).append((values["_step"], value))
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log (blocks of 32 KiB, 7 bytes before each piece) of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield Record.FromString(record)
            record = b""


def test_a_tracker_that_is_switched_on_late_gets_all_that_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    plain = MetricsLog(path)
    plain.log(step=1, loss=3.0)
    plain.log(step=2, loss=float("nan"), note="a word")
    kept = Remembering()
    late = MetricsLog(path, [Background("late", kept, print)])
    late.log(step=3, loss=1.0)
    late.close()
    assert kept.points == [Point(1, {"loss": 3.0}), Point(3, {"loss": 1.0})]
    assert kept.closed


class Remembering:
    """A tracker in memory, which may be told to fail or to hang at a step."""

    def __init__(self, fail_at: int = 0, hang_at: int = 0) -> None:
        self.points: list[Point] = []
        self.fail_at, self.hang_at, self.release = fail_at, hang_at, threading.Event()
        self.closed = False

    def begin(self, history: Sequence[Point]) -> None:
        self.points = list(history)

    def log(self, point: Point) -> None:
        if point.step == self.fail_at:
            raise OSError(28, "No space left on device")
        if point.step == self.hang_at:
            self.release.wait()
        self.points.append(point)

    def close(self) -> None:
        self.closed = True


def test_a_tracker_that_fails_is_named_once_and_left(tmp_path: Path) -> None:
    said: list[str] = []
    log = MetricsLog(tmp_path / "metrics.jsonl", [Background("wandb", Remembering(fail_at=3), said.append)])
    for step in range(1, 11):
        log.log(step=step, loss=1.0)
    log.close()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 10
    assert said == [
        "wandb stopped, the run continues without it: OSError(28, 'No space left on device')",
        "wandb missed 8 lines; metrics.jsonl has all of them",
    ]


def test_a_tracker_that_hangs_blocks_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    hanging = Remembering(hang_at=2)
    log = MetricsLog(
        tmp_path / "metrics.jsonl", [Background("trackio", hanging, said.append, close_seconds=0.2)]
    )
    began = time.monotonic()
    for step in range(1, 11):
        log.log(step=step, loss=1.0)
    log.close()
    assert time.monotonic() - began < 5
    assert said == [
        "trackio was still writing after 0.2 s: its last lines may be missing",
        "trackio missed 9 lines; metrics.jsonl has all of them",
    ]
    hanging.release.set()


def test_a_slow_tracker_drops_lines_rather_than_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.core.trackers.WAITING_LINES", 4)
    said: list[str] = []
    hanging = Remembering(hang_at=1)
    slow = Background("trackio", hanging, said.append, close_seconds=0.1)
    for step in range(1, 101):
        slow.log(Point(step, {"loss": 1.0}))
    assert slow._calls.qsize() <= 4
    slow.close()
    assert said[-1] == "trackio missed 100 lines; metrics.jsonl has all of them"
    hanging.release.set()


def test_a_missing_package_is_named_with_what_to_install() -> None:
    require(("tensorboard",))
    with pytest.raises(GroundupError) as error:
        require(("tensorboard", "trackio_of_nobody"))  # type: ignore[arg-type]
    assert str(error.value) == (
        'runtime.trackers names "trackio_of_nobody", but its package is not installed. '
        "pip install 'groundup[trackio_of_nobody]', or remove it from runtime.trackers"
    )


def test_a_folder_of_the_same_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GroundupError, match="not installed"):
        require(("results_of_nobody",))  # type: ignore[arg-type]


def test_only_numbers_at_a_step_are_points() -> None:
    lines = [{"step": 1, "loss": 2, "ok": True, "bad": "nan"}, {"loss": 3.0}, {"step": 2, "note": "x"}]
    assert points(lines) == [Point(1, {"loss": 2.0})]


class Made(Recipe):
    steps: int = 3


@stage(version=1, kind="scores")
def make(recipe: Made, runtime: Runtime, out: StageContext) -> dict[str, Any]:
    for step in range(1, recipe.steps + 1):
        out.log(step=step, loss=1.0 / step)
    return {}


def test_a_stage_fills_the_trackers_its_site_names_and_keeps_them_out_of_the_artifact(store: Store) -> None:
    runtime = Runtime(trackers=("tensorboard",))
    artifact = Builder(store, runtime, Reporter(quiet=True))(make, Made())
    files = list((store.root / "trackers" / "tensorboard" / artifact.path.name).iterdir())
    assert len(files) == 1 and files[0].stat().st_size > 100
    assert set(artifact.manifest()["files"]) == {"metrics.jsonl"}
    assert os.fspath(artifact.path) == os.fspath(
        Builder(store, Runtime(), Reporter(quiet=True))(make, Made()).path
    )


def test_a_tracker_is_told_the_runs_name_and_its_resolved_configuration(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    class Fake(Remembering):
        def __init__(self, run: Run) -> None:
            super().__init__()
            runs.append(run)

    monkeypatch.setattr("groundup.core.trackers.tensorboard.KIND", Fake)
    runtime = Runtime(trackers=("tensorboard",), threads=1)
    builder = Builder(store, runtime, Reporter(quiet=True), run_name="mine")
    artifact = builder(make.labelled("first"), Made())
    digest = artifact.path.name.rsplit("-", 1)[-1]
    assert [run.title for run in runs] == [f"mine/first-{digest}"]
    config = runs[0].config
    assert config["recipe"] == {"steps": 3}
    assert config["runtime"]["threads"] == 1
    assert not list(artifact.path.rglob("run.json"))
