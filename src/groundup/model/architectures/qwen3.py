"""The Qwen3 shape: the default, since every common runtime loads it and its norms keep training steady.

https://arxiv.org/abs/2505.09388
"""

from typing import ClassVar

from groundup.model.architectures import Dense


class Qwen3(Dense):
    """Pre-norm decoder with rotary positions, grouped-query attention and SwiGLU, and QK-norm. 0 = from depth."""

    model_type: ClassVar[str] = "qwen3"
    published_class: ClassVar[str] = "Qwen3ForCausalLM"
