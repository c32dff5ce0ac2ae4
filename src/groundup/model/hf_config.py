"""Our configs and weights in the form in which models are published, and back.

in:  a DecoderConfig and our tensors, or a config.json and tensors under published names
out: the other of the two

Which names and which keys is the architecture part's business (`architectures/`). A decoder with a switch that no
published format carries keeps our own names and a config.json of our own (`model_type` "groundup").
"""

from dataclasses import fields, replace
from typing import Any, cast

from groundup.core.registry import Plugin
from groundup.model.architectures import Architecture, Tensors
from groundup.model.config import DecoderConfig

SLOT = Plugin("groundup.model.architectures")
OWN = "groundup"


def architecture_of(config: DecoderConfig) -> type[Architecture]:
    """The part under whose names the weights are published."""
    return cast(type[Architecture], SLOT.load(config.architecture))


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """config.json: the published one where there is one, else our own.

    Raises ValueError naming a number that the published form of its architecture has no place for.
    """
    if config.unportable():
        return {"model_type": OWN, "architectures": ["Decoder"], "config": config.to_json()}
    part = architecture_of(config)
    said = part.to_hf(config)
    here, there = _arithmetic(config), _arithmetic(part.from_hf(said))
    lost = [field.name for field in fields(here) if getattr(here, field.name) != getattr(there, field.name)]
    if lost:
        raise ValueError(
            f"{lost[0]} = {getattr(here, lost[0])!r} has no place in the published form of {config.architecture}"
        )
    return said


def _arithmetic(config: DecoderConfig) -> DecoderConfig:
    """Without what only training knows."""
    moe = config.moe and replace(config.moe, balance="none", balance_rate=0.0)
    return replace(config, zero_init=False, moe=moe)


def config_from_hf(said: dict[str, Any]) -> DecoderConfig:
    """The inverse of `config_json`; also reads what others published.

    Raises ValueError for another architecture or a variant that isn't computed here, KeyError for a missing key.
    """
    kind = said.get("model_type")
    if kind == OWN:
        return DecoderConfig.from_json(said["config"])
    parts = {cast(type[Architecture], SLOT.load(name)).model_type: name for name in SLOT.names()}
    if kind not in parts:
        raise ValueError(
            f"config.json has model_type = {kind!r}; this decoder computes {', '.join(sorted(parts))}"
        )
    return cast(type[Architecture], SLOT.load(parts[kind])).from_hf(said)


def tensors_to_hf(config: DecoderConfig, tensors: Tensors) -> Tensors:
    """Our tensors under published names, or under our own where the config isn't portable."""
    return tensors if config.unportable() else architecture_of(config).tensors_to_hf(config, tensors)


def tensors_from_hf(config: DecoderConfig, tensors: Tensors) -> Tensors:
    """The inverse of `published_tensors`."""
    return tensors if config.unportable() else architecture_of(config).tensors_from_hf(config, tensors)
