"""LoRA against W + (alpha / rank) B A written out, and against the PEFT library where it is installed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from decoders import GPT2, LLAMA, OLMO3, QWEN3, QWEN3_MOE, decoder
from safetensors.torch import load_file
from torch import Tensor

from groundup.core.errors import DataError, GroundupError
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.lora import Lora, LoraLinear, attach, load_adapters, merge, save_adapters
from groundup.model.losses import cross_entropy
from groundup.parallel.activation_checkpoint import checkpoint_activations
from groundup.parallel.cpu import stack_products
from groundup.parallel.engines.native import NativeEngine
from groundup.train.loop import TrainSpec, train
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

SHAPES = {"qwen3": QWEN3, "llama": LLAMA, "olmo3": OLMO3, "gpt2": GPT2, "qwen3_moe": QWEN3_MOE}
LORA = Lora(rank=4, alpha=6.0)
IDS = torch.randint(0, 96, (2, 33), generator=torch.Generator().manual_seed(0))


def loss(model: Decoder) -> Tensor:
    hidden = model.hidden(IDS[:, :-1]).flatten(0, 1)
    total, weight = cross_entropy(hidden, model.head_weight, IDS[:, 1:].flatten(), torch.ones(64))
    return total / weight


def adapted(model: Decoder, lora: Lora = LORA, noise: float = 0.0) -> Decoder:
    """With adapters; with `noise`, B is no longer zero."""
    attach(model, lora)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model


def trained(model: Decoder, steps: int = 5) -> Decoder:
    optimizer = AdamW(lr=0.02).build(model.named_parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("config", SHAPES.values(), ids=list(SHAPES))
def test_it_starts_where_the_base_is(config: DecoderConfig) -> None:
    base = decoder(config)
    with torch.no_grad():
        expected = base(IDS)
        assert torch.equal(adapted(base)(IDS), expected)


def test_only_adapters_learn_and_the_base_keeps_its_bits() -> None:
    model = decoder(QWEN3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = float(loss(trained(adapted(model), 1)).detach())
    end = float(loss(trained(model, 5)).detach())
    after = model.state_dict()
    assert end < 0.9 * start
    assert all(torch.equal(after[name], before[name]) for name in before)
    changed = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == {name for name in after if name not in before}


def test_there_are_rank_times_both_sides_numbers_to_learn() -> None:
    model = decoder(LLAMA)
    sides = [part.weight.shape for name, part in model.named_modules() if name.endswith("_proj")]
    learnt = sum(p.numel() for p in adapted(model).parameters() if p.requires_grad)
    assert len(sides) == 7 * LLAMA.n_layers
    assert learnt == sum(4 * (outer + inner) for outer, inner in sides)


@pytest.mark.parametrize("config", SHAPES.values(), ids=list(SHAPES))
def test_merged_it_computes_what_it_did_attached(config: DecoderConfig) -> None:
    model = trained(adapted(decoder(config)), 3)
    names = [name for name in model.state_dict() if "lora_" not in name]
    with torch.no_grad():
        expected = model(IDS)
        merge(model)
        torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(part, LoraLinear) for part in model.modules())


def test_gradients_are_those_of_the_written_out_weight() -> None:
    model = adapted(decoder(QWEN3), noise=0.1)
    name = "model.layers.1.mlp.up_proj"
    part = model.get_submodule(name)
    assert isinstance(part, LoraLinear)
    loss(model).backward()
    # The same map with one matrix in its place: d loss / d W gives both by the chain rule.
    plain = copy.deepcopy(model)
    whole = (part.weight + 6.0 / 4 * part.lora_B.weight @ part.lora_A.weight).detach().requires_grad_()
    plain.get_submodule(name).forward = lambda x: F.linear(x, whole)  # type: ignore[assignment]
    loss(plain).backward()
    assert whole.grad is not None
    d_a, d_b = part.lora_A.weight.grad, part.lora_B.weight.grad
    torch.testing.assert_close(d_b, 1.5 * whole.grad @ part.lora_A.weight.T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d_a, 1.5 * part.lora_B.weight.T @ whole.grad, rtol=1e-4, atol=1e-6)


def test_what_speeds_up_and_saves_memory_leaves_it_alone() -> None:
    plain, fitted = adapted(decoder(QWEN3), noise=0.1), adapted(decoder(QWEN3), noise=0.1)
    checkpoint_activations(fitted, "full")
    for layer in fitted.model.layers:
        stack_products(layer)
    for model in (plain, fitted):
        loss(model).backward()
    for (name, one), other in zip(plain.named_parameters(), fitted.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_muon_leaves_thin_matrices_to_adamw_and_frozen_ones_alone() -> None:
    model = adapted(decoder(QWEN3))
    optimizer = Muon(lr=0.01, adam_lr=0.01, weight_decay=0.1).build(model.named_parameters())
    loss(model).backward()
    optimizer.step()
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {parameter for name, parameter in model.named_parameters() if "lora_" in name}
    assert all("exp_avg" in state for state in optimizer.state.values())


class Interrupted(Exception):
    pass


def test_an_interrupted_training_ends_in_the_same_bits(work: StageContext, tmp_path: Path) -> None:
    def run(out: StageContext, until: int = 4) -> dict[str, Tensor]:
        def batches(step: int) -> list[int]:
            if step == until:
                raise Interrupted
            return [step]

        model = adapted(decoder(QWEN3))
        optimizer = Muon(lr=0.01, adam_lr=0.01).build(model.named_parameters())
        engine = NativeEngine(model, optimizer, lambda model, _: (loss(model), {}), 1.0)
        runtime = Runtime(checkpoint_seconds=1e-6)
        train(TrainSpec("train", engine, batches, lambda _: 1.0, 4, out, runtime))
        return model.state_dict()

    whole, again = run(work), StageContext(tmp_path / "again", Reporter(quiet=True))
    with pytest.raises(Interrupted):
        run(again, until=2)
    resumed = run(again)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_adapters_go_out_and_come_back(tmp_path: Path) -> None:
    model = trained(adapted(decoder(QWEN3)))
    save_adapters(tmp_path, model, LORA, "some/base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert tensors[first].shape == (4, 48)
    assert len(tensors) == 2 * 7 * QWEN3.n_layers
    fresh = decoder(QWEN3)
    assert load_adapters(tmp_path, fresh) == Lora(
        4, 6.0, tuple(sorted({name.split(".", 2)[2].rsplit(".", 2)[0] for name in tensors}))
    )
    with torch.no_grad():
        assert torch.equal(fresh(IDS), model(IDS))


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return apply


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no readable LoRA adapters"),
        (edit(lambda said: said.pop("r")), "no readable LoRA adapters"),
        (edit(lambda said: said.update(use_dora=True)), "asks for use_dora, which is not supported"),
        (edit(lambda said: said.update(bias="all")), "asks for biases"),
        (edit(lambda said: said.update(r=2)), "does not match this model: see model.layers.0"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    spoil: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    save_adapters(tmp_path, adapted(decoder(QWEN3)), LORA)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words):
        load_adapters(tmp_path, decoder(QWEN3))


def test_adapters_of_weights_that_are_published_otherwise_stay_here(tmp_path: Path) -> None:
    with pytest.raises(
        GroundupError, match=r"has another name or shape in the Hugging Face format of gpt2.*Merge it"
    ):
        save_adapters(tmp_path, adapted(decoder(GPT2)), LORA)


def test_mistakes_are_named() -> None:
    model = decoder(QWEN3)
    with pytest.raises(GroundupError, match=r"no matrix matches \*query\. Available: .*q_proj"):
        attach(model, Lora(targets=("*query",)))
    assert all(parameter.requires_grad for parameter in model.parameters())
    attach(model, LORA)
    with pytest.raises(GroundupError, match="has adapters already"):
        attach(model, LORA)
    with pytest.raises(GroundupError, match="rank = 0 must be at least 1"):
        Lora(rank=0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about names that PEFT still uses
@pytest.mark.parametrize("config", [QWEN3, LLAMA, OLMO3], ids=["qwen3", "llama", "olmo3"])
def test_peft_reads_our_adapters_and_computes_the_same(config: DecoderConfig, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = decoder(config)
    save_model(tmp_path / "base", model)
    trained(adapted(model))
    save_adapters(tmp_path / "adapter", model, LORA)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), rtol=1e-4, atol=1e-4)
    theirs.save_pretrained(tmp_path / "again")
    load_adapters(tmp_path / "again", fresh := decoder(config))
    with torch.no_grad():
        assert torch.equal(fresh(IDS), model(IDS))
