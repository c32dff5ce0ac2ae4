"""What is measured while training, against plain loops; and that measuring changes nothing."""

import math
import mmap
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.model.attention import AttentionKernel
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.train.batches import TokenBatch
from groundup.train.monitor import (
    SAMPLE_SIZE,
    ModelMonitor,
    attention_logits,
    largest_logit,
    part_of,
    sample,
    update_ratios,
)

CONFIG = DecoderConfig(vocab_size=40, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48)


def decoder(seed: int = 0) -> Decoder:
    made = Decoder(CONFIG)
    made.init_weights(seed)
    return made


def rows(device: str = "cpu") -> TokenBatch:
    """Two rows of two documents each, the second with padding at its end."""
    ids = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(1))
    segments = torch.tensor([[1] * 5 + [2] * 7, [1] * 3 + [2] * 6 + [-1] * 3])
    batch = (ids, ids.roll(-1, 1), segments, (segments >= 0).float())
    return TokenBatch(*(tensor.to(device) for tensor in batch))


def loss_of(model: Decoder, batch: TokenBatch) -> Tensor:
    logits = model(batch.ids, batch.segments).flatten(0, 1)
    return nn.functional.cross_entropy(logits, batch.targets.flatten())


def trained(
    watch: bool, steps: int = 6, model: Decoder | None = None, device: str = "cpu"
) -> tuple[Decoder, list[Any]]:
    """A few steps of AdamW, watched or not; the weights and what each step said."""
    model = (model or decoder()).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watching = ModelMonitor(model, every=3, probe=rows(device)) if watch else None
    said = []
    for step in range(1, steps + 1):
        loss_of(model, rows(device)).backward()
        if watching:
            watching.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        said.append(watching.after_step(step) if watching else {})
    return model, said


def test_the_first_and_every_third_step_are_measured_and_no_weight_feels_it() -> None:
    plain, _ = trained(watch=False)
    watched, said = trained(watch=True)
    assert [bool(values) for values in said] == [True, False, True, False, False, True]
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)


def test_update_ratios_are_those_of_the_whole_step_by_part_of_the_model() -> None:
    model = decoder()
    before = {name: p.detach().double() for name, p in model.named_parameters()}
    watch = ModelMonitor(model)
    watch.before_step(1)
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            p.mul_(1 + 0.001 * (index + 1))
    values = watch.after_step(1)
    ratios: dict[str, list[float]] = {}
    for name, p in model.named_parameters():
        change = (p.detach().double() - before[name]).norm() / before[name].norm()
        ratios.setdefault(part_of(name), []).append(float(change))
    assert set(ratios) == {"embedding", "head", "attention", "mlp", "scale"}
    for part, found in ratios.items():
        assert values[f"update_ratio/{part}"] == pytest.approx(sorted(found)[len(found) // 2], rel=0.35)
        assert values[f"update_ratio_min/{part}"] == pytest.approx(min(found), rel=1e-3)
        assert values[f"update_ratio_max/{part}"] == pytest.approx(max(found), rel=1e-3)
    assert values["update_ratio_max"] == pytest.approx(max(map(max, ratios.values())), rel=1e-3)


def test_the_median_is_over_parameters() -> None:
    net = nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in ("a", "b", "c")})
    watch = ModelMonitor(net)
    watch.before_step(1)
    with torch.no_grad():
        for factor, p in zip((1.5, 1.01, 1.1), net.parameters(), strict=True):
            p.mul_(factor)
    values = watch.after_step(1)
    assert values["update_ratio/other"] == pytest.approx(0.1, rel=1e-4)


def test_a_matrix_that_starts_at_zero_spoils_nothing() -> None:
    net = nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in ("a", "b")})
    nn.init.zeros_(net["a"].weight)
    watch = ModelMonitor(net)
    watch.before_step(1)
    with torch.no_grad():
        net["a"].weight.add_(1.0)
        net["b"].weight.mul_(1.25)
    values = watch.after_step(1)
    assert values["update_ratio_max"] == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("shape", [(1024, 4096), (50_304, 64), (333, 1001)])
def test_a_sample_tells_the_ratio_of_the_whole(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(shape, generator=generator)
    old[:, 1::2] *= 0.1  # columns differ
    new = old + 1e-3 * torch.randn(shape, generator=generator) * torch.linspace(2, 0.5, shape[0])[:, None]
    assert sample(old).numel() <= SAMPLE_SIZE
    (ratio,) = update_ratios([sample(old)], [sample(new)]).tolist()
    assert ratio == pytest.approx(float((new - old).norm() / old.norm()), rel=0.02)
    assert sample(old[:8, :8]).numel() == 64


def test_the_largest_logit_is_that_of_all_pairs_that_see_each_other() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 2, 6, 8, generator=generator)
    seen = torch.rand(2, 1, 6, 6, generator=generator) < 0.3
    expected = max(
        abs(float(q[b, h, i].double() @ k[b, h // 2, j].double())) / math.sqrt(8)
        for b in range(2) for h in range(4) for i in range(6) for j in range(6) if seen[b, 0, i, j]
    )  # fmt: skip
    assert float(largest_logit(q, k, seen)) == pytest.approx(expected, rel=1e-5)
    everything = float(largest_logit(q, k, torch.ones_like(seen)))
    assert everything > expected


def test_attention_logits_of_a_model_are_those_its_layers_compare() -> None:
    model, batch = Decoder(replace(CONFIG, windows=(0, 0, 4))), rows()
    model.init_weights(0)
    taken: list[tuple[Tensor, Tensor]] = []
    usual = model.kernel

    def taking(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        taken.append((q.detach().double(), k.detach().double()))
        return usual.attend(q, k, v, seen)

    model.set_attention_kernel(AttentionKernel("taking", usual.make_mask, taking))
    model.hidden(batch.ids, batch.segments)
    model.set_attention_kernel(usual)
    found = attention_logits(model, batch)
    assert model.kernel is usual
    assert all(layer.self_attn.attend is usual.attend for layer in model.model.layers)
    for logit, (q, k), window in zip(found.tolist(), taken, (12, 12, 4), strict=True):
        expected = max(
            abs(float(q[b, h, i] @ k[b, h // 2, j])) / math.sqrt(8)
            for b in range(2) for h in range(4) for i in range(12) for j in range(i + 1)
            if i - j < window and (i == j or batch.segments[b, i] == batch.segments[b, j] >= 0)
        )  # fmt: skip
        assert logit == pytest.approx(expected, rel=1e-5)


def test_a_poisoned_document_is_not_looked_at_from_another() -> None:
    q, k = torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)
    q[..., 3, 0], k[..., 0, 0] = 100.0, 100.0
    seen = torch.eye(4, dtype=torch.bool)[None, None]
    assert float(largest_logit(q, k, seen)) == 0.0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_layers_are_measured_alike_and_not_compiled_again() -> None:
    compilations: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        compilations.append(1)
        return graph.forward

    eager, said = trained(watch=True, steps=3)
    model = decoder()
    for layer in model.model.layers:
        layer.compile(backend=counting, dynamic=False)
    torch._dynamo.reset()
    compiled, same = trained(watch=True, steps=3, model=model)
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    before = len(compilations)
    assert before > 0
    trained(watch=True, steps=1, model=model)
    assert len(compilations) == before
    logits = [f"attention_logit_max/layer_{n}" for n in range(3)] + ["attention_logit_max"]
    for a, b in zip(said[::2], same[::2], strict=True):
        assert [a[name] for name in logits] == pytest.approx([b[name] for name in logits], rel=1e-4)
    assert said[2]["attention_logit_max"] == max(said[2][name] for name in logits[:3])


def test_speed_is_the_median_step_so_that_a_pause_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("groundup.train.monitor.time", SimpleNamespace(perf_counter=lambda: clock.now))
    watch = ModelMonitor(nn.Linear(4, 4), every=10, flops_per_step=3e9, rate=lambda: 1e10)
    for step in range(1, 11):
        clock.now += 100.0 if step == 4 else 0.5
        watch.before_step(step)
        values = watch.after_step(step)
    assert values["step_seconds"] == pytest.approx(0.5)
    assert values["flops_utilization"] == pytest.approx(0.6)


def test_memory_is_what_the_process_holds() -> None:
    watch = ModelMonitor(nn.Linear(4, 4), every=1)
    watch.before_step(1)
    before = watch.after_step(1)["memory_gb"]
    with mmap.mmap(-1, 200_000_000) as held:  # from the system: torch may have freed memory left to take
        held.write(bytes(200_000_000))
        watch.before_step(2)
        assert float(watch.after_step(2)["memory_gb"]) - float(before) == pytest.approx(0.2, abs=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_that_are_not_measured_wait_for_nothing() -> None:
    model = decoder().to("cuda")
    watch = ModelMonitor(model, every=1000, probe=rows("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2, 20):
            watch.before_step(step)
            assert watch.after_step(step) == {}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    watch.before_step(1000)
    values = watch.after_step(1000)
    assert values["attention_logit_max"] > 0
    assert 0 < values["memory_gb"] < torch.cuda.get_device_properties(0).total_memory / 1e9
