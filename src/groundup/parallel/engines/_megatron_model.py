"""Megatron-Core's GPTModel for a decoder of ours, and where each of our parameters lies in it.

in:  a decoder's config, the layout, Megatron's ranks
out: this rank's GPTModel; Places: for each of its parameters, the parts of ours that are in it

Megatron keeps queries, keys and values in one matrix, key/value head by key/value head with the queries that share it;
gate and up in one, half and half; and it fills up the vocabulary until it divides by the ranks.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import GroundupError
from groundup.model.config import DecoderConfig
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines._external import library

CORE = "megatron.core"


@dataclass(frozen=True)
class MegatronTensor:
    """One of our parameters, as far as this rank has it."""

    name: str
    shape: torch.Size
    """of all of it"""
    axis: int | None
    """along which the axis `tensor` splits it; None = every rank has all of it"""
    at: Callable[[Tensor], Tensor]
    """Megatron's parameter, or what is remembered of it -> the part's numbers in it: a view, of any shape"""


@dataclass(frozen=True)
class MegatronSlice:
    """One of Megatron's parameters."""

    parameter: nn.Parameter
    parts: tuple[MegatronTensor, ...]
    twin: bool = False
    """whether it is the last stage's copy of the embedding, which counts there where it is the embedding"""
    by_heads: bool = False
    """whether ranks of the axis `tensor` have all of it, but each learns from its own heads"""

    @property
    def split(self) -> bool:
        """Whether ranks of the axis `tensor` have different numbers of it."""
        return self.parts[0].axis is not None


@cache
def core(module: str) -> Any:
    """A module of Megatron-Core, which warns of its own defaults."""
    warnings.filterwarnings("ignore", module=r"megatron\.core", category=UserWarning)
    return library(f"{CORE}.{module}", "megatron")


def check_supported(config: DecoderConfig, tensor: int, pipeline: int) -> None:
    """Raises GroundupError for a decoder that isn't built here of Megatron's parts, or that ranks can't share."""
    unsupported = {
        "experts": config.moe is not None,
        "biases": config.biases,
        "LayerNorm": config.norm == "layer",
        "norms after the layers": config.norm_at == "output",
        "a norm over all heads": config.qk_norm == "width",
        "learned positions": config.positions == "learned",
        "stretched rotary angles": config.rope_scaling is not None,
        "windows": any(config.windows),
        "layers without rotary positions": bool(config.rope_layers),
        f'activation = "{config.activation}"': config.activation != "swiglu",
        "value embeddings": config.value_embeddings,
        "scalars on the stream": config.residual_scalars or config.embedding_scalars,
        "a softcap": bool(config.logit_softcap),
        "an induction circuit, whose weights are held": config.induction,
    }
    for name, used in unsupported.items():
        if used:
            raise GroundupError(
                f'runtime.engine: the engine "megatron" is built for Llama and Qwen3, and this decoder has {name}. '
                'Take runtime.engine.use = "native"'
            )
    sizes = {"key/value heads": config.n_kv_heads, "feed-forward width": config.d_ff}
    for name, size in sizes.items():
        if size % tensor:
            raise GroundupError(f"runtime.layout.tensor = {tensor} does not divide the {size} of the {name}")
    if config.n_layers % pipeline:
        raise GroundupError(
            f"runtime.layout.pipeline = {pipeline} does not divide the {config.n_layers} layers, as Megatron needs it"
        )


def gpt_model(setup: EngineSpec) -> nn.Module:
    """This rank's layers, with weights of any value. Megatron's ranks must have met."""
    config, layout = setup.decoder.config, setup.layout
    ranks = core("parallel_state")
    layer = core("models.gpt.gpt_layer_specs").get_gpt_layer_local_spec(
        normalization="RMSNorm", qk_layernorm=config.qk_norm == "head"
    )
    model: nn.Module = core("models.gpt").GPTModel(
        _transformer_config(setup),
        layer,
        vocab_size=_padded_rows(config, layout.tensor) * layout.tensor,
        max_sequence_length=config.max_seq_len,
        position_embedding_type="rope",
        rotary_base=config.rope_theta,
        share_embeddings_and_output_weights=config.tie_embeddings,
        pre_process=ranks.is_pipeline_first_stage(),
        post_process=ranks.is_pipeline_last_stage(),
    )
    if ranks.is_pipeline_last_stage():
        _mask_padding_logits(
            model,
            config.vocab_size - ranks.get_tensor_model_parallel_rank() * _padded_rows(config, layout.tensor),
        )
    return model.to(setup.hardware.device)


def _transformer_config(setup: EngineSpec) -> Any:
    """The decoder as Megatron's TransformerConfig."""
    config, layout = setup.decoder.config, setup.layout
    return core("transformer.transformer_config").TransformerConfig(
        num_layers=config.n_layers,
        hidden_size=config.d_model,
        num_attention_heads=config.n_heads,
        num_query_groups=config.n_kv_heads,
        kv_channels=config.head_dim,
        ffn_hidden_size=config.d_ff,
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        normalization="RMSNorm",
        layernorm_epsilon=config.norm_eps,
        qk_layernorm=config.qk_norm == "head",
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        use_cpu_initialization=True,
        perform_initialization=False,
        bf16=setup.hardware.dtype == torch.bfloat16,
        params_dtype=setup.hardware.dtype,
        pipeline_dtype=setup.hardware.dtype,
        calculate_per_token_loss=True,  # ours are shares already: nothing is to be divided
        # Parts that need Apex or Transformer Engine.
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
    )


def _padded_rows(config: DecoderConfig, tensor: int) -> int:
    """Tokens of each rank of the axis `tensor`, with what fills up the last one's."""
    return -(-config.vocab_size // tensor)


def _mask_padding_logits(model: Any, real_rows: int) -> None:
    """Masks the logits of vocabulary padding to -inf. real: tokens of this rank."""

    def hide(
        module: nn.Module, given: Any, made: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        logits, bias = made
        filling = torch.arange(logits.shape[-1], device=logits.device) >= real_rows
        return logits.masked_fill(filling, -torch.inf), bias

    model.output_layer.register_forward_hook(hide)


def parameter_slices(model: Any, config: DecoderConfig, rank: int, ranks: int) -> list[MegatronSlice]:
    """All parameters of this rank's model. rank: its place along the axis `tensor`, which has so many `ranks`."""
    width, each = config.d_model, _padded_rows(config, ranks)
    real_rows = max(0, min(each, config.vocab_size - rank * each))

    def table(name: str) -> MegatronTensor:
        return MegatronTensor(
            name, torch.Size((config.vocab_size, width)), 0, lambda matrix: matrix[:real_rows]
        )

    slices = []
    if model.pre_process:
        slices.append(
            MegatronSlice(model.embedding.word_embeddings.weight, (table("model.embed_tokens.weight"),))
        )
    for layer in model.decoder.layers:
        slices += _layer_slices(layer, config, f"model.layers.{layer.layer_number - 1}.")
    if model.post_process:
        slices.append(
            MegatronSlice(model.decoder.final_layernorm.weight, (_replicated("model.norm.weight", width),))
        )
        if not config.tie_embeddings:
            slices.append(MegatronSlice(model.output_layer.weight, (table("lm_head.weight"),)))
        elif not model.pre_process:
            slices.append(
                MegatronSlice(model.output_layer.weight, (table("model.embed_tokens.weight"),), twin=True)
            )
    missing = set(model.parameters()) - {place.parameter for place in slices}
    assert not missing, f"{len(missing)} parameters of Megatron's model have no place"
    return slices


def _replicated(name: str, size: int) -> MegatronTensor:
    return MegatronTensor(name, torch.Size((size,)), None, lambda vector: vector)


def _layer_slices(layer: Any, config: DecoderConfig, prefix: str) -> list[MegatronSlice]:
    attention, mlp, width = layer.self_attention, layer.mlp, config.d_model
    queries, dim, per_key = (
        config.n_heads * config.head_dim,
        config.head_dim,
        config.n_heads // config.n_kv_heads,
    )
    keys = config.n_kv_heads * dim

    def part(name: str, rows: int, columns: int, axis: int, at: Callable[[Tensor], Tensor]) -> MegatronTensor:
        return MegatronTensor(f"{prefix}{name}.weight", torch.Size((rows, columns)), axis, at)

    def group(first: int, last: int) -> Callable[[Tensor], Tensor]:
        """Heads first..last of every group of queries, a key and a value."""
        return lambda matrix: matrix.view(-1, per_key + 2, dim, width)[:, first:last]

    def half(which: int) -> Callable[[Tensor], Tensor]:
        return lambda matrix: matrix.chunk(2)[which]

    def all_of(matrix: Tensor) -> Tensor:
        return matrix

    slices = [
        MegatronSlice(layer.input_layernorm.weight, (_replicated(f"{prefix}input_layernorm.weight", width),)),
        MegatronSlice(
            attention.linear_qkv.weight,
            (
                part("self_attn.q_proj", queries, width, 0, group(0, per_key)),
                part("self_attn.k_proj", keys, width, 0, group(per_key, per_key + 1)),
                part("self_attn.v_proj", keys, width, 0, group(per_key + 1, per_key + 2)),
            ),
        ),
        MegatronSlice(attention.linear_proj.weight, (part("self_attn.o_proj", width, queries, 1, all_of),)),
        MegatronSlice(
            layer.pre_mlp_layernorm.weight, (_replicated(f"{prefix}post_attention_layernorm.weight", width),)
        ),
        MegatronSlice(
            mlp.linear_fc1.weight,
            (
                part("mlp.gate_proj", config.d_ff, width, 0, half(0)),
                part("mlp.up_proj", config.d_ff, width, 0, half(1)),
            ),
        ),
        MegatronSlice(mlp.linear_fc2.weight, (part("mlp.down_proj", width, config.d_ff, 1, all_of),)),
    ]
    if config.qk_norm == "head":
        for kind, normed in (("q", attention.q_layernorm), ("k", attention.k_layernorm)):
            name = f"{prefix}self_attn.{kind}_norm.weight"
            slices.append(MegatronSlice(normed.weight, (_replicated(name, dim),), by_heads=True))
    return slices
