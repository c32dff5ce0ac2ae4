"""`groundup chat`: one answer, or a conversation.

in:  a checkpoint, options, perhaps a question
out: answers on stdout; a banner on stderr for a person at a terminal
"""

import sys

from groundup.core.errors import GroundupError
from groundup.core.runtime import Runtime
from groundup.core.store import ChosenModel
from groundup.serve.banner import banner
from groundup.serve.conversation import ChatOptions, Grounding, open_chat
from groundup.serve.line_input import is_interactive, question_reader
from groundup.serve.terminal import converse, print_answer
from groundup.text.retrieval.retriever import Retriever, read_passages


def chat_with(
    chosen: ChosenModel,
    options: ChatOptions,
    runtime: Runtime,
    question: str | None,
    as_json: bool,
    sources: bool = True,
) -> None:
    """Answer `question`; without one, the questions of stdin. Raises GroundupError for an empty question.

    sources: whether passages of the corpus go into the prompts of a model that is fine-tuned for it.
    """
    if question is not None and not question.strip():
        raise GroundupError("--prompt is empty. Give a question, or omit --prompt to start a conversation")
    chat, hardware = open_chat(chosen.folder, options, runtime)
    if sources and chosen.passages is not None:
        retriever = Retriever(read_passages(chosen.passages))
        chat.grounding = Grounding(retriever, chosen.passages_per_prompt)
    if question is not None:
        print_answer(chat, question, as_json)
        return
    if is_interactive():
        print(banner(chat, hardware, chosen), file=sys.stderr)
    converse(chat, question_reader(), as_json)
