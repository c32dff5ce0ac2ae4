"""The whole diagnosis on this machine: everything right, within its minute, and readable by people and programs."""

import json
import math
from pathlib import Path

import pytest
import torch

from groundup.cli import main
from groundup.core.runtime import Runtime
from groundup.doctor import doctor, machine
from groundup.doctor.check import ADVICE, Check, CheckContext, Difference, compare, equal, outcome
from groundup.parallel.hardware import choose_hardware

SITE = Runtime(device="cpu", threads=1, compile="off")
RIGHT = Check("sums: two and two", "sums are wrong", lambda bench: [Difference("2 + 2", 1e-8, 1e-6)])
WRONG = Check(
    "sums: two and three",
    "sums are wrong",
    lambda bench: [Difference("2 + 2", 1e-8, 1e-6), Difference("2 + 3", math.nan, 1e-6)],
)


def bench(folder: Path) -> CheckContext:
    return CheckContext(choose_hardware(SITE), folder)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A doctor that measures for an instant and has one check."""
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    monkeypatch.setattr(doctor, "CHECKS", (RIGHT,))
    return monkeypatch


def test_all_numbers_are_right_here_in_bf16_and_fp32() -> None:
    hardware = choose_hardware(SITE, "bf16")
    found = list(doctor.run(doctor.CHECKS, hardware))
    assert [f"{one.name}: {one.worst}, {one.error} > {one.tolerance}" for one in found if not one.ok] == []
    assert sum(one.seconds for one in found) < 60


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_numbers_are_right_on_the_gpu() -> None:
    hardware = choose_hardware(Runtime(device="cuda"))
    assert [one.worst for one in doctor.run(doctor.CHECKS, hardware) if not one.ok] == []


def test_every_check_has_a_name_of_its_own_and_says_what_it_guards() -> None:
    names = [check.name for check in doctor.CHECKS]
    assert len(set(names)) == len(names)
    assert all(check.guards and check.advice for check in doctor.CHECKS)


def test_a_diagnosis_is_a_table_that_ends_with_the_verdict(
    short: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--device", "cpu", "--compile", "off", "--workspace", str(tmp_path)])
    assert left.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.startswith("sums")]
    assert [line[:7] for line in table] == [["sums:", "two", "and", "two", "ok", "1.0e-08", "1.0e-06"]]
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].startswith("All numbers are right, ")
    assert any(line.startswith("products") and "fp32" in line and "TFLOP/s" in line for line in lines)


def test_a_failed_check_says_what_it_means_and_ends_with_exit_code_1(
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


def test_the_json_is_strict_and_holds_everything(
    short: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short.setattr(doctor, "CHECKS", (RIGHT, WRONG))
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--device", "cpu", "--compile", "off", "--workspace", str(tmp_path), "--json"])
    assert left.value.code == 1
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["ok"] is False
    assert [(one["name"], one["ok"]) for one in said["checks"]] == [(RIGHT.name, True), (WRONG.name, False)]
    assert said["checks"][1]["error"] is None
    assert said["machine"]["precision"] in ("bf16", "fp32")
    assert said["machine"]["matmul_flops"]["fp32"] > 1e8
    assert 1e8 < said["machine"]["bandwidth"] < 1e14
    assert 0 < said["machine"]["memory_free"] <= said["machine"]["memory"]


def test_a_check_that_raises_has_failed_and_tells_what_was_raised(tmp_path: Path) -> None:
    def broken(bench: CheckContext) -> list[Difference]:
        raise ValueError("no such kernel")

    found = outcome(Check("a", "b", broken), bench(tmp_path))
    assert (found.ok, found.worst) == (False, "ValueError: no such kernel")


def test_the_worst_difference_is_the_one_nearest_to_its_own_tolerance(tmp_path: Path) -> None:
    parts = [Difference("loose", 1e-2, 1.0), Difference("tight", 9e-7, 1e-6), Difference("exact", 0.0, 0.0)]
    found = outcome(Check("a", "b", lambda bench: parts), bench(tmp_path))
    assert (found.ok, found.worst, found.error) == (True, "tight", 9e-7)


def test_an_error_is_measured_against_the_largest_number_and_the_dtype() -> None:
    want = torch.tensor([1.0, -4.0], dtype=torch.float64)
    found = compare("x", torch.tensor([1.0, -4.5]), want, 3, torch.bfloat16)
    assert (found.what, found.error, found.tolerance) == ("x, bf16", 0.125, 3 * 2**-7)
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
    assert not outcome(Check("a", "b", lambda bench: []), bench(tmp_path)).ok
