"""The Llama shape: as Qwen3, without the norms on queries and keys.

https://arxiv.org/abs/2302.13971
"""

from typing import ClassVar

from groundup.model.architectures import Dense


class Llama(Dense):
    """Pre-norm decoder with rotary positions, grouped-query attention and SwiGLU. 0 = from depth."""

    qk_norm: ClassVar[bool] = False
