"""The benchmarks of training speed, at sizes of a second: that they measure what they say, not how fast it is."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from groundup.core.runtime import Layout, Runtime
from groundup.model.architectures.qwen3 import Qwen3
from groundup.parallel.hardware import choose_hardware
from groundup.parallel.launcher import launch
from groundup.parallel.shard import local

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

COUNTER = """
import sys, time
sys.path.insert(0, {benchmarks!r})
from turns import Turns
turns = Turns(warm_up=2, parameters=7, first_loss={loss})
print("a library that prints")
while True:
    time.sleep(0.01)
    turns.after_step()
"""


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def counter(loss: float = 1.0) -> list[str]:
    return [sys.executable, "-c", COUNTER.format(benchmarks=str(BENCHMARKS), loss=loss)]


def test_a_contender_steps_only_while_it_is_its_turn() -> None:
    from turns import Contender

    with Contender("counter", counter()) as contender:
        assert contender.facts["parameters"] == 7
        assert 0.01 <= contender.facts["first_step_seconds"] < 1
        turns = [contender.run(0.1) for _ in range(2)]
    for turn in turns:
        assert 0.1 <= turn.seconds < 1
        assert 1 <= turn.steps <= 11


def test_a_contender_that_breaks_is_reported_with_its_own_words() -> None:
    from turns import Contender

    with pytest.raises(SystemExit, match=r"broken ended with 1:(.|\n)*no such thing"):
        Contender("broken", [sys.executable, "-c", "raise ValueError('no such thing')"])


def test_models_that_differ_are_refused() -> None:
    from training import alike

    alike({"a": {"parameters": 5, "first_loss": 8.30}, "b": {"parameters": 5, "first_loss": 8.33}})
    with pytest.raises(SystemExit, match="models differ"):
        alike({"a": {"parameters": 5, "first_loss": 8.3}, "b": {"parameters": 6, "first_loss": 8.3}})
    with pytest.raises(SystemExit, match="different losses"):
        alike({"a": {"parameters": 5, "first_loss": 8.3}, "b": {"parameters": 5, "first_loss": 7.3}})


def test_ratios_and_shares_are_taken_within_a_round() -> None:
    from training import table

    said = {"parameters": 5, "first_loss": 8.3, "first_step_seconds": 2.0}
    text = table(
        {
            "shape": {"layers": 1, "width": 8, "vocab": 16, "seq_len": 4},
            "flops_per_token": 10.0,
            "facts": {"groundup": said, "peer": said},
            # The machine halves its speed after the first round; ratio and share stay.
            "tokens_per_second": {"groundup": [400.0, 200.0, 200.0], "peer": [100.0, 50.0, 50.0]},
            "matmul_flops": [8000.0, 4000.0, 4000.0],
        }
    )
    assert "| groundup | 200 (200 to 400) | 1.00 | 0.500 |" in text
    assert "| peer | 50 (50 to 100) | 4.00 | 0.125 |" in text


def test_rows_hold_documents_of_the_length_that_was_asked_for() -> None:
    from trainee import BOS, token_rows

    rows = token_rows(200, 513, 4096, document=160)
    assert rows.min() == BOS and rows.max() < 4096
    assert (rows[:, 0] == BOS).all()
    assert rows.size / (rows == BOS).sum() == pytest.approx(
        120, rel=0.1
    )  # a row of 513 cuts the last one off
    assert np.array_equal(rows, token_rows(200, 513, 4096, document=160))


@pytest.mark.parametrize("chunked", [True, False])
def test_the_profiler_sees_whether_all_logits_exist(chunked: bool) -> None:
    from masking import full_logits, step_memory

    hardware = choose_hardware(Runtime(compile="off"), "fp32")
    vocab, positions = 4096, 8192
    memory = step_memory(hardware, None if chunked else full_logits, 1, 64, vocab, positions // 64, 64)
    everything = positions * vocab * 4
    assert (memory.largest < everything) == chunked
    assert (memory.peak > 2 * everything) != chunked


def test_a_trainee_without_documents_computes_plain_causal_attention() -> None:
    import trainee
    from masking import kernels

    hardware = choose_hardware(Runtime(compile="off"), "fp32")
    config = Qwen3(d_model=64).config(1, vocab_size=64, max_seq_len=32)
    batch = trainee.batch(trainee.token_rows(2, 33, 64, document=8), hardware.device)
    whole = trainee.Batch(batch.ids, batch.targets, torch.zeros_like(batch.segments))
    models = [trainee.Trainee(config, hardware, kernel) for kernel in kernels(hardware).values()]
    with torch.no_grad():
        packed, causal = (float(model.loss(model.model, batch)[0]) for model in models)
        unpacked = float(models[0].loss(models[0].model, whole)[0])
    assert packed != pytest.approx(causal, abs=1e-6)
    assert unpacked == pytest.approx(causal, abs=1e-5)


def test_the_small_gpu_benchmark_runs_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_training

    runtime, out = Runtime(compile="off", micro_batch=2), tmp_path / "gpu.json"
    measured = gpu_training.main(gpu_training.SMALL, ["fp32"], rows=4, steps=30, runtime=runtime, out=out)
    assert measured[0].loss < math.log(gpu_training.SMALL.vocab_size) - 0.1
    (said,) = json.loads(out.read_text())
    assert said["tokens_per_second"] > 0 and 0 < said["share"] < 1
    assert "| fp32 |" in capsys.readouterr().out


def test_one_rank_learns_the_same_plain_and_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    import one_rank
    import scaling

    made = []

    def trainee(*arguments: Any) -> Any:
        made.append(scaling.TimedTraining(*arguments))
        return made[-1]

    monkeypatch.setattr(one_rank, "TimedTraining", trainee)
    eager = {"compile": "off"}
    monkeypatch.setattr(
        scaling, "choose_hardware", lambda runtime: choose_hardware(runtime.model_copy(update=eager), "fp32")
    )
    monkeypatch.setattr("groundup.train.optimizers.muon.cpu_has_fast_bf16", lambda: False)
    plain, sharded = one_rank.costs(depth=1, width=32, rows=2, steps=2)
    assert len(plain) == len(sharded) == 2
    assert not dist.is_initialized()
    one, two = (trainee.model.state_dict() for trainee in made)
    assert any(isinstance(parameter, DTensor) for parameter in made[1].model.parameters())
    for name, tensor in one.items():
        torch.testing.assert_close(local(two[name]), tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.cluster
def test_ranks_that_share_rows_are_hoped_to_take_half_the_time() -> None:
    from scaling import measured

    found = launch(measured, (Layout(context=2), 1, 32, 2, 3), 2, 300.0)
    assert found["tokens"] == {"alone": 2 * 512, "together": 2 * 512}
    by_hand = [one / two / 2 for one, two in zip(found["alone"], found["together"], strict=True)]
    assert found["efficiency"] == pytest.approx(by_hand)
    assert found["stall"] > 0
    assert found["write"] > 0
