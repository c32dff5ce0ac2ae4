"""What published config.json files of several architectures have in common: rotary scalings, windows, and refusals.

in:  our numbers, or a published table
out: the published table's keys, or our numbers; ValueError naming the key and value of what isn't computed here
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.model.config import SCALING_NUMBERS, RopeScaling

Said = dict[str, Any]

FULL, SLIDING = "full_attention", "sliding_attention"

NEUTRAL: dict[str, tuple[Any, ...]] = {
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
"""Keys by which models change their arithmetic, and the values that change nothing. null never does."""


def refuse_others(said: Said, computed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ValueError for a key of `computed` with another value than these; a missing one or null is fine."""
    for key, values in computed.items():
        value = said.get(key)
        if value is None or value in values:
            continue
        instead = f", only {' or '.join(repr(one) for one in values)}" if values else ""
        raise ValueError(f"config.json has {key} = {value!r}, which isn't computed here{instead}")


def scaling_to_hf(scaling: RopeScaling | None, theta: float) -> dict[str, Any]:
    """As transformers spells rotary positions: rope_parameters."""
    said: dict[str, Any] = {"rope_type": scaling.kind if scaling else "default", "rope_theta": theta}
    if scaling is None:
        return said
    names = SCALING_NUMBERS[scaling.kind]
    numbers = scaling.model_dump(mode="json", include={"factor", *names})
    if not scaling.attention_factor:
        numbers.pop("attention_factor", None)  # by the rule, which others know too
    if "original_max_seq_len" in numbers:
        numbers["original_max_position_embeddings"] = numbers.pop("original_max_seq_len")
    return said | numbers


def scaling_from_hf(said: Said) -> tuple[float, RopeScaling | None]:
    """Base of the angles and their scaling from a published config.json, in its old or its new spelling.

    Raises ValueError for a kind that isn't computed here.
    """
    return read_scaling(said.get("rope_scaling") or said.get("rope_parameters") or {}, said)


def read_scaling(rope: Said, said: Said) -> tuple[float, RopeScaling | None]:
    """The same from the table `rope` of the config `said`."""
    refuse_others(rope, {"partial_rotary_factor": (1,), "mrope_section": ()})
    theta = float(_first(rope.get("rope_theta"), said.get("rope_theta")))
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "dynamic":
        raise ValueError(
            "config.json has rope_type = 'dynamic', which isn't computed here: its angles change while a text "
            "grows, and cached keys would keep the old ones"
        )
    if kind not in SCALING_NUMBERS:
        raise ValueError(f"config.json has rope_type = {kind!r}, which isn't computed here")
    max_seq_len = said.get("max_position_embeddings") or 0
    original = _first(
        said.get("original_max_position_embeddings"),
        rope.get("original_max_position_embeddings"),
        max_seq_len,
    )
    factor = float(_first(rope.get("factor"), max_seq_len / original if original else None))
    derived = {"original_max_seq_len": original, "attention_factor": _attention_factor(rope, factor)}
    names = SCALING_NUMBERS[kind]
    numbers = {key: value for key, value in (rope | derived).items() if key in names and value is not None}
    return theta, RopeScaling.model_validate({"kind": kind, "factor": factor} | numbers)


def _attention_factor(rope: Said, factor: float) -> float:
    """As said, or by the pair of `mscale` that DeepSeek has; 0 = by the paper's rule."""
    said, both = rope.get("attention_factor"), (rope.get("mscale"), rope.get("mscale_all_dim"))
    if said is None and all(both) and factor > 1:
        above, below = (0.1 * scale * math.log(factor) + 1.0 for scale in both if scale)
        return float(above / below)
    return float(said or 0.0)


def one_window(windows: Sequence[int]) -> int | None:
    """The only window among a model's layers. Raises ValueError where there are several."""
    found = sorted(set(windows) - {0})
    if len(found) > 1:
        raise ValueError(
            f"windows of {' and '.join(map(str, found))} can't be published: there is room for one"
        )
    return found[0] if found else None


def layer_types(windows: Sequence[int], n_layers: int) -> list[str]:
    """As transformers spells which layers have a window."""
    return [SLIDING if window else FULL for window in windows or (0,) * n_layers]


def windows_from_hf(types: Sequence[str], window: int | None) -> tuple[int, ...]:
    """Per layer how far back it sees; () where all see everything. Raises ValueError for other kinds of layers."""
    unknown = sorted(set(types) - {FULL, SLIDING})
    if unknown:
        raise ValueError(f"config.json has layer_types with {unknown[0]!r}, which isn't computed here")
    if SLIDING not in types:
        return ()
    if not window:
        raise ValueError(f"config.json has layer_types with {SLIDING!r}, but no sliding_window")
    return tuple(window if kind == SLIDING else 0 for kind in types)


def _first(*values: Any) -> Any:
    """The first that is said."""
    return next(value for value in values if value is not None)
