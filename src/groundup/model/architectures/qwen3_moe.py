"""The Qwen3-MoE shape: Qwen3 with many experts in place of each feed-forward.

https://arxiv.org/abs/2505.09388. Shared experts and balancing by a bias are computed too, but no published format of
this shape carries them.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from groundup.model.architectures import Dense, Tensors
from groundup.model.config import DecoderConfig, MoE


class Qwen3MoE(Dense):
    """Qwen3 whose tokens each use a few of many experts. 0 = from depth."""

    model_type: ClassVar[str] = "qwen3_moe"
    published_class: ClassVar[str] = "Qwen3MoeForCausalLM"
    defaults: ClassVar[dict[str, Any]] = Dense.defaults | {"num_key_value_heads": 4}
    not_computed: ClassVar[dict[str, tuple[Any, ...]]] = {
        "use_sliding_window": (False,),
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([],),
        "n_shared_experts": (0,),
        "shared_expert_intermediate_size": (0,),
        "first_k_dense_replace": (0,),
        "routed_scaling_factor": (1,),
        "scoring_func": ("softmax",),
        "n_group": (1,),
    }

    n_experts: int = Field(default=8, ge=1, description="experts to choose from")
    n_experts_per_token: int = Field(default=2, ge=1, description="of which every token uses so many")
    d_expert: int = Field(
        default=0, ge=0, description="width of one; 0 = a token meets as many as in a dense layer"
    )
    n_shared_experts: int = Field(
        default=0, ge=0, description="experts that every token uses besides; not portable"
    )
    normalize: bool = Field(default=True, description="the chosen experts' weights add up to one")
    balance: Literal["bias", "loss", "none"] = Field(
        default="loss", description="what keeps all experts busy; bias is not portable"
    )
    balance_rate: float = Field(
        default=1e-3, ge=0, description="loss: its coefficient; bias: change of an expert's bias per step"
    )

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth, by the rules of `Dense`.

        Experts are as wide as lets a token meet the parameters of a dense layer, rounded up to a multiple of 8.
        Raises ValueError for ReLU^2: experts are SwiGLUs.
        """
        if self.relu2:
            raise ValueError("relu2 = true: experts are SwiGLUs, leave it false")
        dense = super().config(depth, vocab_size, max_seq_len)
        used = self.n_experts_per_token + self.n_shared_experts
        moe = MoE(
            n_experts=self.n_experts,
            n_experts_per_token=self.n_experts_per_token,
            d_expert=self.d_expert or -(-dense.d_ff // used // 8) * 8,
            n_shared_experts=self.n_shared_experts,
            normalize=self.normalize,
            balance=self.balance,
            balance_rate=self.balance_rate,
        )
        return replace(dense, architecture="qwen3_moe", moe=moe)

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """config.json."""
        assert config.moe is not None
        return super().to_hf(config) | {
            "num_experts": config.moe.n_experts,
            "num_experts_per_tok": config.moe.n_experts_per_token,
            "moe_intermediate_size": config.moe.d_expert,
            "norm_topk_prob": config.moe.normalize,
            "router_aux_loss_coef": config.moe.balance_rate if config.moe.balance == "loss" else 0.0,
            "output_router_logits": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From a published config.json."""
        rate = float(said.get("router_aux_loss_coef") or 0.0)
        moe = MoE(
            n_experts=said["num_experts"] if "num_experts" in said else said["num_local_experts"],
            n_experts_per_token=said["num_experts_per_tok"],
            d_expert=said["moe_intermediate_size"],
            normalize=said.get("norm_topk_prob") or False,
            balance="loss" if rate else "none",
            balance_rate=rate,
        )
        return replace(super().from_hf(said), moe=moe)

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Every expert's matrices by themselves, as published files have them."""
        found: Tensors = {}
        for name, value in tensors.items():
            stem, _, last = name.rpartition(".")
            if not stem.endswith(".experts"):
                found[name] = value
                continue
            for number, matrix in enumerate(value):
                if last == "down_proj":
                    found[f"{stem}.{number}.down_proj.weight"] = matrix
                else:
                    gate, up = matrix.chunk(2)
                    found[f"{stem}.{number}.gate_proj.weight"] = gate
                    found[f"{stem}.{number}.up_proj.weight"] = up
        return found

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse of `tensors_to_hf`. Raises KeyError for a missing expert."""
        assert config.moe is not None
        tensors = super().tensors_from_hf(config, tensors)
        found = {name: value for name, value in tensors.items() if ".mlp.experts." not in name}
        for layer in range(config.n_layers):
            stem = f"model.layers.{layer}.mlp.experts"
            names = [f"{stem}.{number}" for number in range(config.moe.n_experts)]
            gate_up = [
                torch.cat([tensors.pop(f"{name}.{part}_proj.weight") for part in ("gate", "up")])
                for name in names
            ]
            found[f"{stem}.gate_up_proj"] = torch.stack(gate_up)
            found[f"{stem}.down_proj"] = torch.stack(
                [tensors.pop(f"{name}.down_proj.weight") for name in names]
            )
        return found | {name: value for name, value in tensors.items() if ".mlp.experts." in name}
