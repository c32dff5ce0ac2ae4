"""Qwen3-MoE: Qwen3 with a mixture of experts in place of each feed-forward.

https://arxiv.org/abs/2505.09388. Shared experts and bias balancing are supported but not portable.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from groundup.model.architectures import Dense, Tensors
from groundup.model.config import DecoderConfig, MoE


class Qwen3MoE(Dense):
    """Qwen3 with top-k routed experts. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "qwen3_moe"
    hf_class: ClassVar[str] = "Qwen3MoeForCausalLM"
    gguf_arch: ClassVar[str] = "qwen3moe"
    hf_defaults: ClassVar[dict[str, Any]] = Dense.hf_defaults | {"num_key_value_heads": 4}
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {
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

    n_experts: int = Field(default=8, ge=1, description="number of routed experts")
    n_experts_per_token: int = Field(
        default=2, ge=1, description="number of experts that each token is routed to"
    )
    d_expert: int = Field(
        default=0,
        ge=0,
        description="width of one expert; 0 = the active experts together have the width of a dense feed-forward",
    )
    n_shared_experts: int = Field(
        default=0, ge=0, description="not portable: number of additional experts that every token uses"
    )
    normalize: bool = Field(
        default=True, description="normalize the weights of the chosen experts to a sum of one"
    )
    balance: Literal["bias", "loss", "none"] = Field(
        default="loss",
        description="load balancing: auxiliary loss, bias on the router (not portable) or none",
    )
    balance_rate: float = Field(
        default=1e-3,
        ge=0,
        description="loss: coefficient of the auxiliary loss; bias: change of each expert's bias per step",
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        return {"balance_rate": 'balance = "none"'} if self.balance == "none" else {}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`.

        d_expert = 0: the active experts of a token together have the width of a dense layer, each rounded up to a
        multiple of 8. Raises ValueError for relu2.
        """
        if self.relu2:
            raise ValueError("relu2 = true is not supported with experts, which use SwiGLU: set it to false")
        dense = super().config(depth, vocab_size, max_seq_len)
        active = self.n_experts_per_token + self.n_shared_experts
        moe = MoE(
            n_experts=self.n_experts,
            n_experts_per_token=self.n_experts_per_token,
            d_expert=self.d_expert or -(-dense.d_ff // active // 8) * 8,
            n_shared_experts=self.n_shared_experts,
            normalize=self.normalize,
            balance=self.balance,
            balance_rate=self.balance_rate,
        )
        return replace(dense, architecture="qwen3_moe", moe=moe)

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of Qwen3MoeForCausalLM."""
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
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        rate = float(hf_config.get("router_aux_loss_coef") or 0.0)
        moe = MoE(
            n_experts=hf_config["num_experts"]
            if "num_experts" in hf_config
            else hf_config["num_local_experts"],
            n_experts_per_token=hf_config["num_experts_per_tok"],
            d_expert=hf_config["moe_intermediate_size"],
            normalize=hf_config.get("norm_topk_prob") or False,
            balance="loss" if rate else "none",
            balance_rate=rate,
        )
        return replace(super().from_hf(hf_config), moe=moe)

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """One set of matrices per expert, as in the files of transformers."""
        converted: Tensors = {}
        for name, value in tensors.items():
            stem, _, last = name.rpartition(".")
            if not stem.endswith(".experts"):
                converted[name] = value
                continue
            for number, matrix in enumerate(value):
                if last == "down_proj":
                    converted[f"{stem}.{number}.down_proj.weight"] = matrix
                else:
                    gate, up = matrix.chunk(2)
                    converted[f"{stem}.{number}.gate_proj.weight"] = gate
                    converted[f"{stem}.{number}.up_proj.weight"] = up
        return converted

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse of `tensors_to_hf`. Raises KeyError for a missing expert."""
        assert config.moe is not None
        tensors = super().tensors_from_hf(config, tensors)
        converted = {name: value for name, value in tensors.items() if ".mlp.experts." not in name}
        for layer in range(config.n_layers):
            stem = f"model.layers.{layer}.mlp.experts"
            names = [f"{stem}.{number}" for number in range(config.moe.n_experts)]
            gate_up = [
                torch.cat([tensors.pop(f"{name}.{part}_proj.weight") for part in ("gate", "up")])
                for name in names
            ]
            converted[f"{stem}.gate_up_proj"] = torch.stack(gate_up)
            converted[f"{stem}.down_proj"] = torch.stack(
                [tensors.pop(f"{name}.down_proj.weight") for name in names]
            )
        return converted | {name: value for name, value in tensors.items() if ".mlp.experts." in name}
