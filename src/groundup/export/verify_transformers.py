"""An exported folder in transformers, compared with our decoder.

in:  the checkpoint, the exported folder
out: Verification; GroundupError if they differ
"""

import importlib
from pathlib import Path
from typing import Any

import torch

from groundup.core.errors import GroundupError
from groundup.export.source import ExportSource
from groundup.export.verify import Reference, Verification, compare

TOLERANCE = 1e-4
LOWER_PRECISION_TOLERANCE = 0.5
"""For weights that were rounded to fp16 or bf16."""


class TransformersRuntime:
    """The exported folder, loaded by transformers' Auto classes in fp32."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        transformers = load_transformers()
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    @torch.no_grad()
    def next_log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities of all next tokens, fp32 [vocab]."""
        return torch.log_softmax(self.model(torch.tensor([ids])).logits[0, -1], dim=-1)

    def answer(self, question: str, max_new_tokens: int) -> tuple[str, bool]:
        """Greedy text after a question, through the chat template where there is one."""
        text = question
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": question}]
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = self.tokenizer(text, return_tensors="pt")
        output = self.model.generate(
            input_ids=prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        ids = output[0, prompt["input_ids"].shape[1] :].tolist()
        stop = self.model.generation_config.eos_token_id
        ended = bool(ids) and ids[-1] in (stop if isinstance(stop, list) else [stop])
        return self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True), ended


def load_transformers() -> Any:
    """The package transformers. Raises GroundupError naming what to install."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise GroundupError(
            f"--verify needs the package transformers ({error}): pip install 'transformers>=5'"
        ) from None


def verify_transformers(source: ExportSource, folder: Path, exact: bool = True) -> Verification:
    """Raises GroundupError if transformers computes another model. exact: the weights are fp32."""
    tolerance = TOLERANCE if exact else LOWER_PRECISION_TOLERANCE
    reference = Reference(source)
    result = compare(reference, TransformersRuntime(folder), tolerance)
    result.require(same_texts=exact)
    return result
