"""`groundup chat`: one answer, or a conversation.

in:  a checkpoint, options, perhaps a question
out: answers on stdout; a banner on stderr for a person at a terminal
"""

import sys

from groundup.core.errors import GroundupError
from groundup.core.runtime import Runtime
from groundup.core.store import ChosenModel
from groundup.serve.banner import banner
from groundup.serve.conversation import ChatOptions, open_chat
from groundup.serve.line_input import is_interactive, question_reader
from groundup.serve.terminal import converse, print_answer


def chat_with(
    chosen: ChosenModel, options: ChatOptions, runtime: Runtime, question: str | None, as_json: bool
) -> None:
    """Answer `question`; without one, the questions of stdin. Raises GroundupError for an empty question."""
    if question is not None and not question.strip():
        raise GroundupError("--prompt is empty. Give a question, or omit --prompt to start a conversation")
    chat, hardware = open_chat(chosen.folder, options, runtime)
    if question is not None:
        print_answer(chat, question, as_json)
        return
    if is_interactive():
        print(banner(chat, hardware, chosen), file=sys.stderr)
    converse(chat, question_reader(), as_json)
