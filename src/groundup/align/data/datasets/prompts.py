"""Dataset `prompts`: what the assistant is asked, perhaps with a reference answer and a verifier's name.

in:  rows with a prompt (text, messages, instruction and input); the answer in `answer`, `solution`, `ground_truth`,
     `target`, or in verl's `reward_model`; the verifier in `verifier`, `dataset` or `data_source`
out: prompts; the row's other columns are their metadata

GSM8K writes the reference answer after `####`: `answer_mark` cuts there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from groundup.align.data.chat_messages import RowError
from groundup.align.data.file_rows import FileDataset, RowContext
from groundup.align.data.rows_of_prompts import PROMPTS, first_column, read_prompt
from groundup.core.records import Prompt, Record
from groundup.evaluate.alignment_data import RecordKind

ANSWERS = ("answer", "solution", "ground_truth", "target", "reference")
VERIFIERS = ("verifier", "dataset", "data_source")


class Prompts(FileDataset):
    """Your own prompts, for methods that sample responses: PPO, GRPO, best-of-n."""

    provides: ClassVar[frozenset[RecordKind]] = frozenset({"prompts"})

    answer_mark: str = Field(
        default="####",
        description="where it occurs in an answer, only the text after it is the reference answer; empty = never",
    )
    verifier: str = Field(default="", description="verifier of all prompts; empty = as the rows say")

    def row_records(self, row: Mapping[str, Any], context: RowContext) -> list[Record]:
        """See `FileDataset`."""
        answer_name = first_column(row, ANSWERS)
        reward = row.get("reward_model")
        verl: Mapping[str, Any] = reward if isinstance(reward, Mapping) else {}
        verifier_name = first_column(row, VERIFIERS)
        answer = verl.get("ground_truth") if answer_name is None else row[answer_name]
        used = {*PROMPTS, "system", "tools", "history", "reward_model", answer_name, verifier_name}
        named = self.verifier or str(row[verifier_name] if verifier_name else verl.get("style") or "")
        return [
            Prompt(
                id=context.place,
                source=context.source,
                messages=read_prompt(row, context.on_change),
                answer=None if answer is None else self._reference(answer),
                verifier=named,
                metadata={name: value for name, value in row.items() if name not in used},
            )
        ]

    def _reference(self, answer: Any) -> str:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise RowError(
                "bad_answer", f"the reference answer is {type(answer).__name__}, not text or a number"
            )
        text = str(answer)
        reference = text.rsplit(self.answer_mark, 1)[-1] if self.answer_mark else text
        if not reference.strip():
            raise RowError("empty_answer", "the reference answer is empty")
        return reference.strip()
