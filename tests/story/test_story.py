"""End to end: a folder of files, hostile ones among them, to a model, a book and a chat; then changes."""

import contextlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from groundup.core.atomic_io import sha256_file
from tiny import OVERRIDES, corpus, groundup, read_json

STAGES = (
    "ingest",
    "curate",
    "tokenizer",
    "tokenize",
    "data",
    "pretrain",
    "finetune",
    "reward",
    "align",
    "evaluate",
    "book",
)
METRICS = {
    "curate": ("documents_read", "documents_kept", "documents_dropped", "bytes_kept"),
    "tokenizer": ("bytes_per_token",),
    "tokenize": ("tokens", "tokens_dropped", "train_rows", "validation_rows"),
    "pretrain": ("parameters", "tokens", "seconds", "tokens_per_second", "flops_utilization", "val_bpb"),
    "finetune": ("val_loss_before", "val_loss"),
    "reward": ("accuracy",),
    "align": ("reward_before", "reward_after", "kl", "chrf_before", "chrf_after"),
    "evaluate": ("base_bpb", "chat_chrf"),
}  # fmt: skip
RUNTIME = ("runtime.compile=off", "runtime.threads=1", "runtime.device=cpu")


@dataclass(frozen=True)
class TinyRun:
    """A folder of texts and the workspace of its run."""

    folder: Path
    workspace: Path

    def run(self, *overrides: str) -> None:
        groundup(*self._argv("run", *overrides))

    def status(self, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, dict[str, str]]:
        capsys.readouterr()
        groundup(*self._argv("status", *overrides), "--json")
        return {item["stage"]: item for item in json.loads(capsys.readouterr().out)}

    def manifest(self, stage: str) -> dict[str, Any]:
        manifest: dict[str, Any] = read_json(self.artifact(stage) / "manifest.json")
        return manifest

    def artifact(self, stage: str) -> Path:
        stages = read_json(self.workspace / "runs" / "own.json")["stages"]
        return self.workspace / "artifacts" / str(stages[stage])

    def _argv(self, command: str, *overrides: str) -> list[str]:
        sets = [part for one in (*OVERRIDES, *RUNTIME, *overrides) for part in ("--set", one)]
        return [command, "--data", str(self.folder), "--workspace", str(self.workspace), *sets]


def make_hostile(folder: Path) -> None:
    (folder / "picture.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin1.txt").write_bytes(("Die Straße führt über den Fluß, sagt man. " * 8).encode("latin-1"))
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / "line.txt").write_bytes(b"word and another word " * (50 * 2**20 // 22))
    (folder / "twin.py").write_bytes((folder / "module_0.py").read_bytes())


@pytest.fixture(scope="module")
def first_messages() -> list[str]:
    """The lines that the first run printed."""
    return []


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, first_messages: list[str]) -> TinyRun:
    base = tmp_path_factory.mktemp("story")
    run = TinyRun(corpus(base / "own"), base / "workspace")
    make_hostile(run.folder)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        run.run()
    first_messages += stderr.getvalue().splitlines()
    return run


def test_rejects_are_summarized_in_the_output(tiny_run: TinyRun, first_messages: list[str]) -> None:
    rejected, dropped = (next(line for line in first_messages if line.strip().startswith(word))
                      for word in ("rejected:", "dropped, each listed"))  # fmt: skip
    assert "empty (1)" in rejected
    assert "exact_duplicate (1)" in dropped


def test_the_run_records_every_stage_and_metric(tiny_run: TinyRun) -> None:
    stages = read_json(tiny_run.workspace / "runs" / "own.json")["stages"]
    assert tuple(stages) == STAGES
    for stage, names in METRICS.items():
        metrics = tiny_run.manifest(stage)["metrics"]
        assert set(names) <= metrics.keys(), stage
    assert tiny_run.manifest("tokenize")["metrics"]["tokens_dropped"] == 0


def test_evaluate_and_pretrain_agree_on_the_base_model(tiny_run: TinyRun) -> None:
    scored = tiny_run.manifest("evaluate")["metrics"]["base_bpb"]
    assert scored == pytest.approx(tiny_run.manifest("pretrain")["metrics"]["val_bpb"], rel=0.02)


def test_every_checksum_verifies(tiny_run: TinyRun) -> None:
    for stage in STAGES:
        files = tiny_run.manifest(stage)["files"]
        on_disk = {str(path.relative_to(tiny_run.artifact(stage)))
                   for path in tiny_run.artifact(stage).rglob("*") if path.is_file()}  # fmt: skip
        assert on_disk - {"manifest.json"} == files.keys()
        for name, entry in files.items():
            path = tiny_run.artifact(stage) / name
            assert (path.stat().st_size, sha256_file(path)) == (entry["bytes"], entry["sha256"])


def test_the_rejects_log_names_every_hostile_file(tiny_run: TinyRun) -> None:
    reasons: dict[str, str] = {}
    for stage in ("ingest", "curate"):
        for path in sorted(tiny_run.artifact(stage).glob("rejects/*.parquet")):
            for row in pq.read_table(path).to_pylist():
                reasons.setdefault(Path(row["path"]).name, row["reason"])
    for name in ("picture.txt", "empty.txt", "gone.txt", "pipe.txt", "line.txt"):
        assert name in reasons, reasons
    # Of the twins one is kept, whichever has the smaller id.
    assert {"twin.py", "module_0.py"} & reasons.keys()


def test_a_second_run_builds_nothing(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    states = tiny_run.status(capsys)
    assert {item["state"] for item in states.values()} == {"up to date"}
    tiny_run.run()
    assert "Everything is up to date" in capsys.readouterr().err


def to_build(states: dict[str, dict[str, str]]) -> list[str]:
    """The stages that are built, or built if the content of an input changes."""
    return [stage for stage, item in states.items() if item["state"].startswith("to build")]


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("align.finetune.epochs=4", "finetune"),
        ("align.align.kl_coef=0.2", "align"),
        ("pretrain.optimizer.lr=0.01", "pretrain"),
        ("tokenize.seq_len=128", "tokenize"),
        ("book.title=Other", "book"),
    ],
)
def test_a_change_rebuilds_its_stage_and_what_follows(
    override: str, first: str, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    states = tiny_run.status(capsys, override)
    rebuilt = list(STAGES[STAGES.index(first) :])
    if first == "tokenize":
        rebuilt.remove("data")  # which reads documents, not tokens
    assert to_build(states) == rebuilt
    assert states[first]["state"] == "to build"
    assert override.split("=")[0].split(".")[-1] in states[first]["why"]


def test_a_changed_runtime_rebuilds_nothing(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_build(tiny_run.status(capsys, "runtime.threads=2", "runtime.micro_batch=1")) == []


def test_one_changed_file_changes_its_document_alone(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny_run.artifact("curate")
    file = tiny_run.folder / "page_1.md"
    old = file.read_text()
    file.write_text(old + "\nAnd one more sentence about it, which was not there before.\n")
    try:
        assert to_build(tiny_run.status(capsys)) == list(STAGES)
        other = TinyRun(tiny_run.folder, tiny_run.workspace)
        other.run()
        after = other.artifact("curate")
    finally:
        file.write_text(old)
    texts = [{row["path"]: row["text"] for path in sorted(folder.glob("documents/*.parquet"))
              for row in pq.read_table(path).to_pylist()} for folder in (before, after)]  # fmt: skip
    assert texts[0].keys() == texts[1].keys()
    changed = [origin for origin in texts[0] if texts[0][origin] != texts[1][origin]]
    assert [Path(origin).name for origin in changed] == ["page_1.md"]
    tiny_run.run()
    assert to_build(tiny_run.status(capsys)) == []


def test_views_of_a_run(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tiny_run.workspace)]
    groundup("show", "own", *workspace)
    assert all(stage in capsys.readouterr().out for stage in STAGES[:1])
    groundup("show", "own", "finetune", *workspace)
    out = capsys.readouterr().out
    assert "Training examples with their loss mask" in " ".join(out.split())
    assert "<|assistant|>" in out
    groundup("diff", "own", "own", *workspace)
    assert "no difference" in capsys.readouterr().out


def test_one_answer_on_stdout(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    groundup("chat", "own", "-p", "What does open_apple do?", "--max-tokens", "20",
          "--workspace", str(tiny_run.workspace))  # fmt: skip
    out, err = capsys.readouterr()
    assert out.endswith("\n")  # so small a model may answer nothing
    assert err == ""


def test_a_damaged_artifact_is_built_again(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    book = tiny_run.artifact("book")
    digest = sha256_file(book / "book.html")
    with (book / "book.html").open("ab") as file:
        file.write(b"x")
    capsys.readouterr()
    tiny_run.run()
    assert "damaged" in capsys.readouterr().err
    assert sha256_file(book / "book.html") == digest
