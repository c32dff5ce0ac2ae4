"""Export to GGUF, the file format of llama.cpp, Ollama and LM Studio.

in:  a checkpoint folder
out: one .gguf file, published atomically: metadata, tokenizer, chat template, tensors in llama.cpp's names and layout

Matrices are written as fp32, fp16, bf16 or q8_0 (8-bit integers with a scale per 32); norms, biases, routers and
position embeddings stay fp32. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.export.files import new_file
from groundup.export.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from groundup.export.source import Check, load_source
from groundup.model.config import DecoderConfig, RopeScaling
from groundup.model.hf_config import architecture_of
from groundup.model.rotary import attention_factor, scaled_frequencies

GgufDtype = Literal["fp32", "fp16", "bf16", "q8_0"]
QUANTIZATIONS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
FILE_TYPES = {"fp32": "ALL_F32", "fp16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
INTERLEAVED = ("llama", "smollm3")
"""Architectures whose rotary pairs are neighbours in llama.cpp."""
NOPE_PERIOD = 4
"""llama.cpp leaves out the rotary positions of every fourth layer of a SmolLM3."""
KEPT_FP32 = ("position_embd", "ffn_gate_inp")
"""Matrices that llama.cpp's converter keeps in fp32: learned positions and routers."""


def export_gguf(folder: Path, target: Path, dtype: GgufDtype = "fp32", verify: Check | None = None) -> None:
    """Export the checkpoint in `folder` to the new file `target`.

    Raises GroundupError for an architecture or a variant that llama.cpp does not compute, naming it.
    """
    gguf = load_gguf()
    source = load_source(folder)
    config = source.model.config
    refuse_unsupported(config)
    tokenizer = gguf_tokenizer(source)
    arch = architecture_of(config).gguf_arch
    tensors = [
        (name, tensor, _quantization(name, tensor, dtype))
        for name, tensor in llama_cpp_tensors(config, source.model.state_dict())
    ]
    with new_file(target, sum(tensor.nbytes for _, tensor, _ in tensors)) as temporary:
        writer = gguf.GGUFWriter(None, arch)
        _write_hyperparameters(writer, config, target.stem, gguf.LlamaFileType[FILE_TYPES[dtype]])
        _write_tokenizer(writer, tokenizer)
        _write_tensors(writer, temporary, tensors)
        if verify is not None:
            verify(source, temporary)


def load_gguf() -> Any:
    """The package gguf. Raises GroundupError naming the extra to install."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise GroundupError(
            f"--format gguf needs the package gguf ({error}): pip install 'groundup[gguf]'"
        ) from None


def refuse_unsupported(config: DecoderConfig) -> None:
    """Raises GroundupError naming the field that llama.cpp does not compute in this architecture."""
    arch = architecture_of(config).gguf_arch
    reasons = {
        "this architecture": not arch,
        f"rope_layers other than every {NOPE_PERIOD}th": (
            bool(config.rope_layers)
            and config.rope_layers != tuple((i + 1) % NOPE_PERIOD != 0 for i in range(config.n_layers))
        ),
        f"rotary positions on each {NOPE_PERIOD}th layer": (
            arch == "smollm3" and not config.rope_layers and config.n_layers >= NOPE_PERIOD
        ),
        "sliding windows": any(config.windows) and arch != "olmo2",
        "n_heads x head_dim other than d_model": (
            arch == "olmo2" and config.n_heads * config.head_dim != config.d_model
        ),
        "normalize = false": config.moe is not None and not config.moe.normalize,
    }
    if config.rope_scaling is not None:
        reasons |= _unsupported_scalings(config.rope_scaling, arch)
    for reason, applies in reasons.items():
        if applies:
            raise GroundupError(
                f"{config.architecture}: llama.cpp does not support {reason}. Export this model with "
                "--format huggingface"
            )


def _unsupported_scalings(scaling: RopeScaling, arch: str) -> dict[str, bool]:
    yarn, olmo = scaling.kind == "yarn", arch == "olmo2"
    return {
        'rope_scaling.kind = "longrope"': scaling.kind == "longrope",
        'rope_scaling.kind = "llama3"': scaling.kind == "llama3" and arch != "llama",
        "rope_scaling.truncate = false": not scaling.truncate,
        "rope_scaling.beta_fast and beta_slow": (
            yarn and not olmo and (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0)
        ),
        "rope_scaling.attention_factor": (
            yarn and olmo and not math.isclose(_attention_ratio(scaling), 1.0, rel_tol=1e-6)
        ),
    }


def _attention_ratio(scaling: RopeScaling) -> float:
    """YaRN's attention factor over that of the paper, by which llama.cpp multiplies anyway."""
    return attention_factor(scaling) / attention_factor(scaling.model_copy(update={"attention_factor": 0.0}))


def llama_cpp_tensors(config: DecoderConfig, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under llama.cpp's name and in its layout."""
    gguf = load_gguf()
    arch = architecture_of(config).gguf_arch
    by_name = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(by_name[arch], config.n_layers)
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        yield "rope_freqs.weight", _frequency_divisors(config)
    for name, tensor in _stacked(config, tensors):
        if arch in INTERLEAVED and name.endswith(
            ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
        ):
            tensor = _interleaved(tensor, config.head_dim)
        llama_cpp_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert llama_cpp_name is not None, name
        yield llama_cpp_name, tensor


def _stacked(config: DecoderConfig, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, with GPT-2's queries, keys and values as one and the gate and up matrices of experts as two."""
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if config.architecture == "gpt2" and ".self_attn." in name and "o_proj" not in name:
            layer = stem.rpartition(".")[0]
            if "q_proj" in name:
                parts = [tensors[f"{layer}.{part}_proj.{last}"] for part in "qkv"]
                yield f"transformer.h.{layer.split('.')[2]}.attn.c_attn.{last}", torch.cat(parts)
        elif last == "gate_up_proj":
            gate, up = tensor.chunk(2, dim=1)
            yield f"{stem}.gate_proj.weight", gate
            yield f"{stem}.up_proj.weight", up
        elif stem.endswith(".experts"):
            yield f"{name}.weight", tensor
        else:
            yield name, tensor


def _interleaved(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows of queries or keys with rotary pairs (i, i + dim/2) as neighbours, as llama.cpp's Llama rotates them."""
    heads = tensor.shape[0] // head_dim
    pairs = tensor.view(heads, 2, head_dim // 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _frequency_divisors(config: DecoderConfig) -> Tensor:
    """By how much Llama 3's scaling divides the frequency of each rotary pair."""
    assert config.rope_scaling is not None
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    periods = config.rope_theta**exponents
    scaled = scaled_frequencies(
        periods, config.rope_theta, config.rope_scaling, torch.zeros(1, 1, dtype=torch.int64)
    )
    return 1.0 / (periods * scaled)


def _write_hyperparameters(writer: Any, config: DecoderConfig, name: str, file_type: int) -> None:
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(load_gguf().GGML_QUANT_VERSION)
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.norm == "layer":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.moe is not None:
        writer.add_expert_count(config.moe.n_experts)
        writer.add_expert_used_count(config.moe.n_experts_per_token)
        writer.add_expert_feed_forward_length(config.moe.d_expert)
    if config.positions == "rope":
        _write_positions(writer, config)


def _write_positions(writer: Any, config: DecoderConfig) -> None:
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if any(config.windows):
        writer.add_sliding_window(max(config.windows))
        writer.add_sliding_window_pattern([bool(window) for window in config.windows])
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "llama3":
        return
    kinds = load_gguf().RopeScalingType
    writer.add_rope_scaling_type(kinds.LINEAR if scaling.kind == "linear" else kinds.YARN)
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_seq_len)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
        writer.add_rope_scaling_attn_factors(_attention_ratio(scaling))


def _write_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    writer.add_add_bos_token(tokenizer.add_bos)
    for name, number in tokenizer.special_ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _quantization(name: str, tensor: Tensor, dtype: GgufDtype) -> Any:
    """The type of one tensor. Rows that q8_0's blocks do not divide become fp16."""
    gguf = load_gguf()
    types = gguf.GGMLQuantizationType
    if tensor.dim() < 2 or any(kept in name for kept in KEPT_FP32):
        return types.F32
    chosen = types[QUANTIZATIONS[dtype]]
    return types.F16 if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[chosen][0] else chosen


def _write_tensors(writer: Any, path: Path, tensors: list[tuple[str, Tensor, Any]]) -> None:
    """Writes the file; one tensor at a time is converted in memory."""
    gguf = load_gguf()
    for name, tensor, kind in tensors:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape, dtype = list(tensor.shape), "float32"
        if block > 1 or kind == gguf.GGMLQuantizationType.BF16:
            shape[-1] = shape[-1] // block * size
            dtype = "uint8"
        writer.add_tensor_info(name, shape, np.dtype(dtype), tensor.numel() // block * size, raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor, kind in tensors:
        writer.write_tensor_data(gguf.quants.quantize(tensor.detach().float().contiguous().numpy(), kind))
    writer.close()
