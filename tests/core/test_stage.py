"""Stages, builder and store: build once, know why, survive damage and company."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from groundup.core.builder import Builder, PipelineBuilder
from groundup.core.errors import StoreError
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, StageInput, stage
from groundup.core.status import StageCollector, stage_reports
from groundup.core.store import Store, verify

CALLS: list[str] = []


class Make(Recipe):
    """Writes a number."""

    number: int = 1


class Add(Recipe):
    """Adds to what it reads."""

    extra: int = 0


@stage(version=1, kind="scores")
def make(recipe: Make, runtime: Runtime, out: StageContext) -> Metrics:
    CALLS.append("make")
    out.file("number.txt").write_text(str(recipe.number))
    out.log(step=1, value=recipe.number)
    return {"number": recipe.number}


@stage(version=1, kind="scores")
def add(recipe: Add, runtime: Runtime, out: StageContext, source: Artifact) -> Metrics:
    CALLS.append("add")
    total = int((source.path / "number.txt").read_text()) + recipe.extra
    out.file("number.txt").write_text(str(total))
    return {"number": total}


def builder(store: Store, **kwargs) -> Builder:
    return Builder(store, kwargs.pop("runtime", Runtime()), Reporter(quiet=True), **kwargs)


def pipeline(build: PipelineBuilder, number: int = 1, extra: int = 0) -> dict[str, Artifact]:
    made = build(make, Make(number=number))
    return {"make": made, "add": build(add, Add(extra=extra), made)}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def test_a_second_run_builds_nothing(store: Store) -> None:
    pipeline(builder(store))
    pipeline(builder(store))
    assert CALLS == ["make", "add"]


def test_only_downstream_of_a_change_is_rebuilt(store: Store) -> None:
    pipeline(builder(store))
    CALLS.clear()
    pipeline(builder(store), extra=5)
    assert CALLS == ["add"]
    CALLS.clear()
    pipeline(builder(store), number=2)
    assert CALLS == ["make", "add"]


def test_the_site_changes_nothing(store: Store) -> None:
    first = pipeline(builder(store))
    second = pipeline(builder(store, runtime=Runtime(threads=1, device="cpu", checkpoint_seconds=1)))
    assert first == second
    assert CALLS == ["make", "add"]


def test_the_manifest_has_the_designs_form_and_verifies(store: Store) -> None:
    made = pipeline(builder(store))["make"]
    said = made.manifest()
    assert {"stage", "fingerprint", "version", "recipe", "inputs", "kind", "runtime", "metrics", "files", "environment",
            "started", "seconds"} <= said.keys()  # fmt: skip
    assert said["recipe"] == {"number": 1} and said["metrics"] == {"number": 1}
    assert set(said["files"]) == {"number.txt", "metrics.jsonl"}
    assert made.path.name == f"make-{said['fingerprint'][:12]}"
    assert verify(made.path) is None


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_artifact_is_found_and_built_again(store: Store, harm: str) -> None:
    path = pipeline(builder(store))["make"].path
    number = path / "number.txt"
    if harm == "flip":
        number.write_text("7")
    elif harm == "truncate":
        number.write_text("")
    elif harm == "delete":
        number.unlink()
    else:
        (path / "manifest.json").write_text("{")
    assert verify(path) is not None
    CALLS.clear()
    pipeline(builder(store))
    assert CALLS == ["make"]
    assert number.read_text() == "1"


def test_a_plan_touches_nothing_and_says_what_differs(store: Store) -> None:
    made = pipeline(builder(store))
    store.record_run("r", made, {})
    before = sorted(store.root.rglob("*"))
    CALLS.clear()
    collector = StageCollector()
    pipeline(collector, extra=3)
    reports = stage_reports(collector.stages, store, store.previous_manifests("r"), store.digests())
    assert [(report.label, report.state) for report in reports] == [
        ("make", "up to date"),
        ("add", "to build"),
    ]
    assert reports[1].why == "extra: 0 -> 3"
    assert CALLS == [] and sorted(store.root.rglob("*")) == before


def test_a_stage_that_failed_leaves_no_artifact_and_its_work_is_kept(store: Store) -> None:
    @stage(version=1, kind="scores")
    def broken(recipe: Make, runtime: Runtime, out: StageContext) -> Metrics:
        if (out.temporary / "half").exists():
            return {"resumed": True}
        (out.temporary / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        builder(store)(broken, Make())
    assert [path.suffix for path in store.artifacts.iterdir()] == [".part"]
    made = builder(store)(broken, Make())
    assert made.metrics() == {"resumed": True}
    assert not (made.path / "resume").exists()


def test_a_run_is_recorded_with_links(store: Store) -> None:
    made = pipeline(builder(store))
    store.record_run("r", made, {"final": "add"})
    said = json.loads((store.runs / "r.json").read_text())
    assert said["stages"] == {label: item.path.name for label, item in made.items()}
    assert (store.runs / "r" / "02-add" / "number.txt").read_text() == "1"
    assert store.run("r") == made
    with pytest.raises(StoreError, match=r"there is no run `other`.*Known runs: r"):
        store.run("other")


def test_a_second_builder_is_refused_with_the_holders_pid(store: Store) -> None:
    artifact = store.artifact("make", "0" * 64, "scores")
    other = Store(store.root)
    with (
        store.lock(artifact),
        pytest.raises(StoreError, match=f"being built by process {os.getpid()}"),
        other.lock(artifact),
    ):
        pass


def test_the_lock_of_a_killed_builder_is_taken_over(store: Store) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from groundup.core.store import Store
        store = Store(Path({str(store.root)!r}))
        with store.lock(store.artifact("make", "0" * 64, "scores")):
            print("held", flush=True)
            time.sleep(60)
    """)
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    artifact = store.artifact("make", "0" * 64, "scores")
    with pytest.raises(StoreError, match=str(holder.pid)), store.lock(artifact):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with store.lock(artifact):
        pass


def test_progress_without_a_terminal_is_plain_lines(capsys, monkeypatch) -> None:
    monkeypatch.setattr("groundup.core.progress.PLAIN_SECONDS", 0.0)
    reporter = Reporter()
    with reporter.track("encode", 4, "documents") as tracker:
        tracker.note("all well")
        tracker.advance(2)
        time.sleep(0.001)
        tracker.advance(2)
    text = capsys.readouterr().err
    assert "encode: 2/4 documents · all well" in text
    assert "\x1b" not in text


def test_a_log_survives_a_torn_line_and_rewinds(work: StageContext) -> None:
    for step in range(1, 5):
        work.log(step=step, loss=float(step), bad=float("nan"))
    path = work.path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    work.rewind_log(3)
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["bad"] == "nan"


@stage(
    version=3,
    kind=lambda recipe: "policy" if recipe.number else "reward_model",
    name=lambda recipe: f"n{recipe.number}",
)
def combine(
    recipe: Make, runtime: Runtime, context: StageContext, first: Artifact, others: Mapping[str, Artifact],
    last: Artifact | None = None,
) -> Metrics:  # fmt: skip
    return {"others": sorted(others), "last": last is not None}


def test_a_stage_is_described_by_its_function(store: Store) -> None:
    assert combine.inputs == (
        StageInput("first", many=False, optional=False),
        StageInput("others", many=True, optional=False),
        StageInput("last", many=False, optional=True),
    )
    assert make.name(Make()) == make.label(Make()) == "make"
    assert combine.name(Make(number=2)) == "n2" and combine.labelled("b").label(Make()) == "b"
    assert combine.artifact_kind(Make(number=0)) == "reward_model"
    assert pickle.loads(pickle.dumps(combine)) is combine


def test_artifacts_of_a_mapping_are_inputs_by_name(store: Store) -> None:
    build = builder(store)
    one, two = build(make, Make(number=1)), build(make.labelled("two"), Make(number=2))
    combined = build(combine.labelled("both"), Make(), one, {"one": one, "two": two})
    assert combined.metrics() == {"others": ["one", "two"], "last": False}
    assert combined.manifest()["inputs"] == {
        "first": one.digest(), "others.one": one.digest(), "others.two": two.digest()
    }  # fmt: skip
    other = build(combine, Make(), one, {"one": one}, last=two)
    assert other.fingerprint != combined.fingerprint
    assert list(build.artifacts) == ["make", "two", "both", "n1"]


def test_the_kind_is_recorded_and_read_back(store: Store) -> None:
    policy = builder(store)(combine, Make(), builder(store)(make, Make()), {})
    store.record_run("r", {"policy": policy}, {})
    assert policy.manifest()["kind"] == "policy" == store.run("r")["policy"].kind


def test_a_partial_run_leaves_the_record_of_a_complete_one_alone(store: Store) -> None:
    complete = pipeline(builder(store))
    store.record_run("r", complete, {})
    record = (store.runs / "r.json").read_text()
    partial = {"make": builder(store)(make, Make(number=2))}
    store.record_partial_run("r", partial, "make")
    assert (store.runs / "r.json").read_text() == record
    assert store.run("r") == complete
    assert store.run("r", newest=True) == partial
    assert (store.runs / "r" / "02-add").is_symlink()
    assert store.referenced_artifacts() == {
        item.path.name for item in [*complete.values(), *partial.values()]
    }
    store.record_run("r", complete, {})
    assert store.run("r", newest=True) == complete


def test_a_partial_run_alone_is_found_by_its_name(store: Store) -> None:
    partial = {"make": builder(store)(make, Make())}
    store.record_partial_run("r", partial, "make")
    assert store.run("r") == partial and store.run_names() == ["r"]
    assert (store.runs / "r" / "01-make" / "number.txt").read_text() == "1"
