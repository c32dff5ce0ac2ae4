"""An exported GGUF file in llama.cpp (the package xllamacpp), compared with our decoder.

in:  the checkpoint, the GGUF file
out: Verification; GroundupError if they differ

The cache of keys and values is fp32 and flash attention is off, so that only the arithmetic of the model is compared.
"""

import importlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import torch

from groundup.core.errors import GroundupError
from groundup.export.source import ExportSource
from groundup.export.verify import Reference, Verification, compare
from groundup.model.config import DecoderConfig

TOLERANCES = {"fp32": 1e-4, "fp16": 0.1, "bf16": 0.5, "q8_0": 2.0}
"""By the type of the matrices: llama.cpp rounds their inputs to the same type."""
GELU_TOLERANCE = 1e-2
"""llama.cpp looks GELU up in a table of fp16."""


class LlamaCppRuntime:
    """llama.cpp's server in this process, on a port of the loopback interface."""

    name = "llama.cpp"

    def __init__(self, path: Path, config: DecoderConfig, chat: bool) -> None:
        self.vocab_size = config.vocab_size
        self.chat = chat
        self.server = load_xllamacpp().Server(_parameters(path, config.max_seq_len))
        self.letter = self.encode("a")[0]

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        ids: list[int] = self._post(
            "/tokenize", {"content": text, "add_special": False, "parse_special": False}
        )["tokens"]
        return ids

    def next_log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities of all next tokens, fp32 [vocab]; -inf where llama.cpp reports none."""
        request = {
            "prompt": ids,
            "max_tokens": 1,
            "logprobs": 1,
            "n_probs": self.vocab_size,
            # No log-probabilities are reported with a token without text. The bias does not change them.
            "logit_bias": [[self.letter, 1000.0]],
            "cache_prompt": False,
        }
        choice = _payload(self.server.handle_completions(request))["choices"][0]
        log_probs = torch.full((self.vocab_size,), -torch.inf)
        for token in choice["logprobs"]["content"][0]["top_logprobs"]:
            log_probs[token["id"]] = token["logprob"]
        return log_probs

    def answer(self, question: str, max_new_tokens: int) -> tuple[str, bool]:
        """Greedy text after a question, through the chat template where there is one."""
        options = {"max_tokens": max_new_tokens, "temperature": 0, "cache_prompt": False}
        if self.chat:
            turns = [{"role": "user", "content": question}]
            choice = _payload(self.server.handle_chat_completions({"messages": turns} | options))["choices"][
                0
            ]
            text = choice["message"]["content"] or ""
        else:
            choice = _payload(self.server.handle_completions({"prompt": question} | options))["choices"][0]
            text = choice["text"]
        return text, choice["finish_reason"] == "stop"

    def _post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.server.listening_address + path,
            json.dumps(payload).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            return _payload(response.read())


def load_xllamacpp() -> Any:
    """The package xllamacpp. Raises GroundupError naming what to install."""
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise GroundupError(
            f"--verify of a GGUF file needs the package xllamacpp ({error}): pip install xllamacpp"
        ) from None


def _parameters(path: Path, context: int) -> Any:
    xllamacpp = load_xllamacpp()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.verbosity = -1
    threads = torch.get_num_threads()
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return parameters


def _payload(response: Any) -> dict[str, Any]:
    """The JSON object of a response. Raises GroundupError with llama.cpp's message."""
    payload = json.loads(response) if isinstance(response, str | bytes) else response
    if not isinstance(payload, dict) or "error" in payload or "code" in payload:
        raise GroundupError(f"llama.cpp refused a request: {payload}")
    return payload


def verify_llama_cpp(source: ExportSource, path: Path, dtype: str = "fp32") -> Verification:
    """Raises GroundupError if llama.cpp computes another model. dtype: of the matrices in the file."""
    config = source.model.config
    tolerance = TOLERANCES[dtype]
    if config.activation == "gelu":
        tolerance = max(tolerance, GELU_TOLERANCE)
    try:
        runtime = LlamaCppRuntime(path, config, source.chat_template is not None)
    except RuntimeError as error:
        raise GroundupError(f"llama.cpp cannot load the exported model: {error}") from None
    result = compare(Reference(source), runtime, tolerance)
    result.require(same_texts=dtype == "fp32")
    return result
