"""LoRA: low-rank adapters beside frozen weights, W x + (alpha / rank) B A x.

in:  a decoder, a Lora (rank, scale, which matrices)
out: the same decoder, of which only A and B are trained; plain weights after `merge`; adapter files in PEFT's format

Hu et al. 2021, https://arxiv.org/abs/2106.09685. B is initialized to zero, so that the decoder is unchanged at first.
Gradients and optimizer states exist for A and B alone, which is where the memory goes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils import skip_init

from groundup.core.atomic_io import write_bytes, write_json
from groundup.core.errors import DataError, GroundupError
from groundup.core.rng import derive_seed
from groundup.model.decoder import Decoder
from groundup.model.hf_config import tensors_to_hf
from groundup.model.induction import held_blocks
from groundup.model.linear import Linear, LinearMap, LinearOp

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
"""PEFT's prefix of parameter names."""
UNSUPPORTED_KEYS = (
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "fan_in_fan_out",
)
"""Keys of PEFT's config that change the arithmetic and are not supported."""


@dataclass(frozen=True)
class Lora:
    """Which matrices are adapted, and how.

    rank: columns of B and rows of A. alpha: their product is multiplied by alpha / rank.
    targets: patterns as in file names, of the matrices' names, e.g. `*.q_proj`; by default all inside the layers.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*_proj",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise GroundupError(f"LoRA: rank = {self.rank} must be at least 1")


@dataclass(frozen=True)
class LoraOp:
    """W x + scale B A x; `inner` computes W x."""

    inner: LinearOp
    adapter: "LoraLinear"
    joint: bool = False

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        (product,) = self.inner(x, *maps)
        return (product + self.adapter.scale * self.adapter.lora_B(self.adapter.lora_A(x)),)


class LowRankLinear(Linear):
    """A or B, which fp8 leaves in the compute dtype."""

    quantizable = False


class LoraLinear(Linear):
    """A frozen linear map and its adapter. The frozen weight is the base's own parameter, under the same name."""

    def __init__(self, base: Linear, rank: int, scale: float) -> None:
        outer, inner = base.weight.shape
        super().__init__(inner, outer, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        device = base.weight.device
        self.lora_A: LowRankLinear = skip_init(LowRankLinear, inner, rank, bias=False, device=device)  # type: ignore[no-untyped-call]
        self.lora_B: LowRankLinear = skip_init(LowRankLinear, rank, outer, bias=False, device=device)  # type: ignore[no-untyped-call]
        self.scale = scale
        self.op = LoraOp(base.op, self)

    def init(self, seed: int) -> None:
        """A is uniform within 1/sqrt(inputs), as in the authors' code; B is zero."""
        bound = self.lora_A.in_features**-0.5
        noise = torch.rand(self.lora_A.weight.shape, generator=torch.Generator().manual_seed(seed))
        self.lora_A.weight.data.copy_(bound * (2 * noise - 1))
        nn.init.zeros_(self.lora_B.weight)

    def merged(self) -> Linear:
        """An equivalent plain linear map, whose weight is the base's own parameter, updated."""
        outer, inner = self.weight.shape
        plain = Linear(inner, outer, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        plain.weight.data += self.scale * (self.lora_B.weight.data @ self.lora_A.weight.data)
        return plain


def attach(model: Decoder, lora: Lora, seed: int = 0) -> None:
    """Freeze `model` and add adapters to the matrices that match; before `prepare_model`, which compiles.

    Raises GroundupError where no matrix matches or the model has adapters.
    """
    if any(adapters(model)):
        raise GroundupError("LoRA: this model has adapters already; merge them first")
    linears = {name: part for name, part in model.named_modules() if isinstance(part, Linear)}
    targets = {n: part for n, part in linears.items() if any(fnmatchcase(n, p) for p in lora.targets)}
    if not targets:
        kinds = sorted({name.rsplit(".", 1)[-1] for name in linears})
        raise GroundupError(
            f"LoRA: no matrix matches {' or '.join(lora.targets)}. Available: {', '.join(kinds)}"
        )
    model.requires_grad_(False)
    for name, linear in targets.items():
        adapter = LoraLinear(linear, lora.rank, lora.alpha / lora.rank)
        adapter.init(derive_seed(seed, "lora", name))
        model.set_submodule(name, adapter)
        # B is zero, but a held column of the matrix stays as it is only if A does not read it.
        for block in held_blocks(model.config, f"{name}.lora_A.weight"):
            adapter.lora_A.weight.data.narrow(block.axis, block.start, block.stop - block.start).zero_()


def adapters(model: Decoder) -> Iterator[tuple[str, LoraLinear]]:
    """All adapted matrices by name."""
    for name, part in model.named_modules():
        if isinstance(part, LoraLinear):
            yield name, part


def merge(model: Decoder) -> None:
    """Add the adapters to the weights and remove them; all parameters become trainable."""
    for name, adapter in list(adapters(model)):
        model.set_submodule(name, adapter.merged())
    model.requires_grad_(True)


def save_adapters(folder: Path, model: Decoder, lora: Lora, base: str = "") -> None:
    """Write the adapters in PEFT's format. base: name of the base model.

    Raises GroundupError where an adapted matrix has another name or shape in the Hugging Face format.
    """
    adapted = dict(adapters(model))
    ours = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
    published = tensors_to_hf(model.config, ours)
    for name, part in adapted.items():
        published_weight = published.get(f"{name}.weight")
        if published_weight is None or published_weight.shape != part.weight.shape:
            raise GroundupError(
                f"LoRA: {name} has another name or shape in the Hugging Face format of {model.config.architecture}, "
                "so its adapter can't be saved. Merge it and save the whole model"
            )
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in _tensors(model).items()}
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted(adapted),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        },
    )


def load_adapters(folder: Path, model: Decoder) -> Lora:
    """Attach adapters that `save_adapters` or PEFT wrote. Raises DataError where they don't match this model."""
    path = folder / WEIGHTS
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        rank, alpha = config["r"], config["lora_alpha"]
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} has no readable LoRA adapters: {error!r}") from None
    unsupported = [key for key in UNSUPPORTED_KEYS if config.get(key)]
    if config.get("bias", "none") != "none" or unsupported:
        raise DataError(
            f"{folder / CONFIG} asks for {', '.join(unsupported or ['biases'])}, which is not supported"
        )
    lora = Lora(rank, alpha, tuple(sorted({name.rsplit(".", 2)[0] for name in tensors})))
    attach(model, lora)
    parameters = _tensors(model)
    mismatched = [
        n for n in sorted(parameters.keys() | tensors.keys()) if _shape(parameters, n) != _shape(tensors, n)
    ]
    if mismatched:
        raise DataError(f"{path} does not match this model: see {', '.join(mismatched[:3])}")
    for name, tensor in parameters.items():
        tensor.copy_(tensors[name])
    return lora


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _tensors(model: Decoder) -> dict[str, Tensor]:
    """A and B of all adapted matrices, in fp32."""
    tensors = {}
    for name, part in adapters(model):
        tensors[f"{name}.lora_A.weight"] = part.lora_A.weight.detach()
        tensors[f"{name}.lora_B.weight"] = part.lora_B.weight.detach()
    return tensors
