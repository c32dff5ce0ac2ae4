"""`groundup doctor` on this machine: all checks pass, in under a minute, as tables and as JSON."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from groundup.cli import main
from groundup.core.runtime import Runtime
from groundup.doctor import doctor, machine
from groundup.doctor.check import ADVICE, Check, CheckContext, Difference, compare, equal, run_check
from groundup.parallel.hardware import choose_hardware

RUNTIME = Runtime(device="cpu", threads=1, compile="off")
RIGHT = Check("sums: two and two", "sums are wrong", lambda context: [Difference("2 + 2", 1e-8, 1e-6)])
WRONG = Check(
    "sums: two and three",
    "sums are wrong",
    lambda context: [Difference("2 + 2", 1e-8, 1e-6), Difference("2 + 3", math.nan, 1e-6)],
)


def context(folder: Path) -> CheckContext:
    return CheckContext(choose_hardware(RUNTIME), folder)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A doctor with one check and short measurements."""
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    monkeypatch.setattr(doctor, "CHECKS", (RIGHT,))
    return monkeypatch


def test_all_checks_pass_here_in_bf16_and_fp32() -> None:
    hardware = choose_hardware(RUNTIME, "bf16")
    began = time.process_time()
    results = list(doctor.run(doctor.CHECKS, hardware))
    failed = [result for result in results if not result.ok]
    assert [f"{one.name}: {one.worst}, {one.error} > {one.tolerance}" for one in failed] == []
    assert time.process_time() - began < 120  # of all cores


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_checks_pass_on_the_gpu() -> None:
    hardware = choose_hardware(Runtime(device="cuda"))
    assert [one.worst for one in doctor.run(doctor.CHECKS, hardware) if not one.ok] == []


def test_every_check_has_a_unique_name_a_guard_and_advice() -> None:
    names = [check.name for check in doctor.CHECKS]
    assert len(set(names)) == len(names)
    assert all(check.guards and check.advice for check in doctor.CHECKS)


def test_a_diagnosis_is_a_table_that_ends_with_a_summary(
    short: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--device", "cpu", "--compile", "off", "--workspace", str(tmp_path)])
    assert left.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.startswith("sums")]
    assert [line[:7] for line in table] == [["sums:", "two", "and", "two", "ok", "1.0e-08", "1.0e-06"]]
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].startswith("All checks passed, ")
    assert any(line.startswith("products") and "fp32" in line and "TFLOP/s" in line for line in lines)


def test_a_failed_check_prints_its_meaning_and_exits_with_1(
    short: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short.setattr(doctor, "CHECKS", (RIGHT, WRONG))
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--device", "cpu", "--compile", "off", "--workspace", str(tmp_path)])
    assert left.value.code == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "sums: two and three FAILED" in out
    assert "2 + 3: error differs, allowed 1.0e-06" in out
    assert f"means: sums are wrong do: {ADVICE}" in out
    assert "1 of 2 checks FAILED" in out


def test_the_json_is_strict_and_complete(
    short: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short.setattr(doctor, "CHECKS", (RIGHT, WRONG))
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--device", "cpu", "--compile", "off", "--workspace", str(tmp_path), "--json"])
    assert left.value.code == 1
    payload = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert payload["ok"] is False
    assert [(one["name"], one["ok"]) for one in payload["checks"]] == [
        (RIGHT.name, True),
        (WRONG.name, False),
    ]
    assert payload["checks"][1]["error"] is None
    assert payload["machine"]["precision"] in ("bf16", "fp32")
    assert payload["machine"]["matmul_flops"]["fp32"] > 1e8
    assert 1e8 < payload["machine"]["bandwidth"] < 1e14
    assert 0 < payload["machine"]["memory_free"] <= payload["machine"]["memory"]


def test_a_check_that_raises_has_failed_and_reports_the_exception(tmp_path: Path) -> None:
    def broken(context: CheckContext) -> list[Difference]:
        raise ValueError("no such kernel")

    result = run_check(Check("a", "b", broken), context(tmp_path))
    assert (result.ok, result.worst) == (False, "ValueError: no such kernel")


def test_the_worst_difference_is_the_one_nearest_to_its_own_tolerance(tmp_path: Path) -> None:
    parts = [Difference("loose", 1e-2, 1.0), Difference("tight", 9e-7, 1e-6), Difference("exact", 0.0, 0.0)]
    result = run_check(Check("a", "b", lambda context: parts), context(tmp_path))
    assert (result.ok, result.worst, result.error) == (True, "tight", 9e-7)


def test_an_error_is_measured_against_the_largest_number_and_the_dtype() -> None:
    want = torch.tensor([1.0, -4.0], dtype=torch.float64)
    result = compare("x", torch.tensor([1.0, -4.5]), want, 3, torch.bfloat16)
    assert (result.what, result.error, result.tolerance) == ("x, bf16", 0.125, 3 * 2**-7)
    assert compare("x", torch.tensor([1.0, -4.5]), want, 3, scale=8.0).error == 0.0625


@pytest.mark.parametrize(
    "got", [torch.tensor([1.0, float("nan")]), torch.tensor([1.0]), torch.tensor([1.0, math.inf])]
)
def test_nan_infinity_and_another_shape_are_never_near_enough(got: torch.Tensor) -> None:
    assert not compare("x", got, torch.ones(2), 1e9).ok


def test_equal_means_equal() -> None:
    assert equal("x", torch.tensor([1, 2]), torch.tensor([1, 2])).ok
    assert not equal("x", torch.tensor([1, 2]), torch.tensor([1, 3])).ok
    assert not equal("x", torch.tensor([1, 2]), torch.tensor([[1, 2]])).ok
    assert equal("x", [1], [1]).ok and not equal("x", [1], [2]).ok


def test_a_check_without_a_difference_is_refused(tmp_path: Path) -> None:
    assert not run_check(Check("a", "b", lambda context: []), context(tmp_path)).ok
