"""Parts of config.json common to several architectures: rotary scaling, sliding windows, unsupported keys.

in:  fields of a DecoderConfig, or a config.json
out: keys of config.json, or fields of a DecoderConfig; ValueError naming an unsupported key and its value
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.model.config import SCALING_KEYS, RopeScaling

HfConfig = dict[str, Any]

FULL, SLIDING = "full_attention", "sliding_attention"

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "qkv_bias": (False,),
    "use_bias": (False,),
    "lm_head_bias": (False,),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "rope_interleaved": (False,),
    "no_rope_layers": ((), []),
    "alibi": (False,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "query_pre_attn_scalar": (),
    "attention_multiplier": (),
    "clip_qkv": (),
    "attention_chunk_size": (),
    "attention_sink_size": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "scale_embedding": (False,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "quantization_config": (),
}
"""Keys of config.json that change the arithmetic of a model, and the values (besides null) that do not."""


def refuse_unsupported(hf_config: HfConfig, supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError for a key of `supported` with an unlisted value; an absent key and null are accepted."""
    for key, values in supported.items():
        value = hf_config.get(key)
        if value is None or value in values:
            continue
        alternatives = f"; supported: {', '.join(map(repr, values))}" if values else ""
        raise ValueError(f"config.json has {key} = {value!r}, which is not supported{alternatives}")


def scaling_to_hf(scaling: RopeScaling | None, theta: float) -> dict[str, Any]:
    """The rope_parameters table of transformers."""
    table: dict[str, Any] = {"rope_type": scaling.kind if scaling else "default", "rope_theta": theta}
    if scaling is None:
        return table
    names = SCALING_KEYS[scaling.kind]
    numbers = scaling.model_dump(mode="json", include={"factor", *names})
    if not scaling.attention_factor:
        numbers.pop(
            "attention_factor", None
        )  # 0 = the rule of the paper, which is also the default of transformers
    if "original_max_seq_len" in numbers:
        numbers["original_max_position_embeddings"] = numbers.pop("original_max_seq_len")
    return table | numbers


def scaling_from_hf(hf_config: HfConfig) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling of a config.json, from rope_scaling (old) or rope_parameters (new).

    Raises ValueError for an unsupported rope_type.
    """
    return scaling_from_table(
        hf_config.get("rope_scaling") or hf_config.get("rope_parameters") or {}, hf_config
    )


def scaling_from_table(rope: HfConfig, hf_config: HfConfig) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling from the table `rope` of `hf_config`."""
    refuse_unsupported(rope, {"partial_rotary_factor": (1,), "mrope_section": ()})
    theta = float(_first_not_none(rope.get("rope_theta"), hf_config.get("rope_theta")))
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "dynamic":
        raise ValueError(
            "config.json has rope_type = 'dynamic', which is not supported: its frequencies change as the context "
            "grows, which invalidates cached keys"
        )
    if kind not in SCALING_KEYS:
        raise ValueError(f"config.json has rope_type = {kind!r}, which is not supported")
    max_seq_len = hf_config.get("max_position_embeddings") or 0
    original = _first_not_none(
        hf_config.get("original_max_position_embeddings"),
        rope.get("original_max_position_embeddings"),
        max_seq_len,
    )
    factor = float(_first_not_none(rope.get("factor"), max_seq_len / original if original else None))
    derived = {"original_max_seq_len": original, "attention_factor": _attention_factor(rope, factor)}
    names = SCALING_KEYS[kind]
    numbers = {key: value for key, value in (rope | derived).items() if key in names and value is not None}
    return theta, RopeScaling.model_validate({"kind": kind, "factor": factor} | numbers)


def _attention_factor(rope: HfConfig, factor: float) -> float:
    """attention_factor, or the value derived from DeepSeek's mscale pair; 0 = the rule of the paper."""
    explicit, mscales = rope.get("attention_factor"), (rope.get("mscale"), rope.get("mscale_all_dim"))
    if explicit is None and all(mscales) and factor > 1:
        numerator, denominator = (0.1 * scale * math.log(factor) + 1.0 for scale in mscales if scale)
        return float(numerator / denominator)
    return float(explicit or 0.0)


def single_window(windows: Sequence[int]) -> int | None:
    """The sliding window of a model. Raises ValueError if layers have different windows."""
    sizes = sorted(set(windows) - {0})
    if len(sizes) > 1:
        raise ValueError(
            f"config.json holds one sliding_window, and layers have {' and '.join(map(str, sizes))}"
        )
    return sizes[0] if sizes else None


def layer_types(windows: Sequence[int], n_layers: int) -> list[str]:
    """The layer_types of transformers: which layers have a sliding window."""
    return [SLIDING if window else FULL for window in windows or (0,) * n_layers]


def windows_from_hf(types: Sequence[str], window: int | None) -> tuple[int, ...]:
    """Window of each layer; () if no layer has one. Raises ValueError for other kinds of layers."""
    unknown = sorted(set(types) - {FULL, SLIDING})
    if unknown:
        raise ValueError(f"config.json has layer_types with {unknown[0]!r}, which is not supported")
    if SLIDING not in types:
        return ()
    if not window:
        raise ValueError(f"config.json has layer_types with {SLIDING!r}, but no sliding_window")
    return tuple(window if kind == SLIDING else 0 for kind in types)


def _first_not_none(*values: Any) -> Any:
    """The first value that is not None."""
    return next(value for value in values if value is not None)
