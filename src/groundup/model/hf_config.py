"""Conversion of configs and tensors to Hugging Face form and back.

in:  a DecoderConfig and its tensors, or a config.json and tensors under Hugging Face names
out: the other of the two

The architecture plugin (`architectures/`) defines keys and tensor names. A decoder with a switch that is not portable
keeps its own tensor names and a config.json with `model_type` "groundup".
"""

from dataclasses import fields, replace
from typing import Any, cast

from groundup.core.registry import Plugin
from groundup.model.architectures import Architecture, Tensors
from groundup.model.config import DecoderConfig

ARCHITECTURES = Plugin("groundup.model.architectures")
OWN_MODEL_TYPE = "groundup"
INDUCTION = "induction_circuit"
"""Key of config.json: the model has an induction circuit, which further training leaves unchanged (`induction.py`)."""


def architecture_of(config: DecoderConfig) -> type[Architecture]:
    """The architecture plugin of a config."""
    return cast(type[Architecture], ARCHITECTURES.load(config.architecture))


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The config.json: the Hugging Face one if the config is portable, else the package's own.

    Raises ValueError naming a field that the config.json of this architecture cannot express.
    """
    if config.unportable():
        return {"model_type": OWN_MODEL_TYPE, "architectures": ["Decoder"], "config": config.to_json()}
    plugin = architecture_of(config)
    hf_config = plugin.to_hf(config)
    original, restored = _arithmetic(config), _arithmetic(plugin.from_hf(hf_config))
    lost = [
        field.name
        for field in fields(original)
        if getattr(original, field.name) != getattr(restored, field.name)
    ]
    if lost:
        raise ValueError(
            f"{lost[0]} = {getattr(original, lost[0])!r} cannot be expressed in the config.json of "
            f"{config.architecture}"
        )
    return hf_config | ({INDUCTION: True} if config.induction else {})


def _arithmetic(config: DecoderConfig) -> DecoderConfig:
    """The config without fields that only affect training."""
    moe = config.moe and replace(config.moe, balance="none", balance_rate=0.0)
    return replace(config, zero_init=False, induction=False, moe=moe)


def config_from_hf(hf_config: dict[str, Any]) -> DecoderConfig:
    """The inverse of `config_to_hf`; also reads the config.json of published models.

    Raises ValueError for an unsupported architecture or variant, KeyError for a missing key.
    """
    model_type = hf_config.get("model_type")
    if model_type == OWN_MODEL_TYPE:
        return DecoderConfig.from_json(hf_config["config"])
    plugins = {
        cast(type[Architecture], ARCHITECTURES.load(name)).model_type: name for name in ARCHITECTURES.names()
    }
    if model_type not in plugins:
        raise ValueError(
            f"config.json has model_type = {model_type!r}; supported are {', '.join(sorted(plugins))}"
        )
    config = cast(type[Architecture], ARCHITECTURES.load(plugins[model_type])).from_hf(hf_config)
    return replace(config, induction=bool(hf_config.get(INDUCTION, False)))


def tensors_to_hf(config: DecoderConfig, tensors: Tensors) -> Tensors:
    """Tensors under Hugging Face names; unchanged if the config is not portable."""
    return tensors if config.unportable() else architecture_of(config).tensors_to_hf(config, tensors)


def tensors_from_hf(config: DecoderConfig, tensors: Tensors) -> Tensors:
    """The inverse of `tensors_to_hf`."""
    return tensors if config.unportable() else architecture_of(config).tensors_from_hf(config, tensors)
