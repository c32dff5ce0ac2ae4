"""Control tokens and chat template of an imported chat model, with which it is trained further and chatted with.

in:  tokenizer.json, tokenizer_config.json and the chat template of a published model; messages
out: parts of the rendered conversation: ids of control tokens and texts, and which of them are in the loss

The template is rendered as transformers does. A content that spells a control token stays text: a character that no
text contains is put into it before rendering and taken out again.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from groundup.core.atomic_io import write_bytes
from groundup.core.errors import DataError
from groundup.core.records import Message

TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    TEMPLATE,
    GENERATION_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
_BREAK, _BEGIN, _END = "\ufdd0", "\ufdd1", "\ufdd2"
"""Noncharacters of Unicode: within a control token that is spelled, and around content that is in the loss."""
_MARKS = re.compile(f"[{_BREAK}{_BEGIN}{_END}]")
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


@dataclass(frozen=True)
class RenderedPart:
    """A control token, or a text."""

    in_loss: bool
    token: int | None = None
    text: str = ""


@dataclass(frozen=True)
class ImportedFormat:
    """Control tokens, special ids and chat template of an imported tokenizer; `files` are kept as they are."""

    control: dict[str, int]
    """text -> id of the added tokens that are special"""
    added: dict[str, int]
    """text -> id of the other added tokens, which texts may contain"""
    bos: int
    eos: int
    pad: int
    stop_ids: frozenset[int]
    special_texts: dict[str, str]
    """bos_token, eos_token, ... as the template reads them"""
    template: str
    files: dict[str, bytes]

    @staticmethod
    def load(folder: Path, table: dict[str, Any]) -> "ImportedFormat":
        """Read the files beside `table`, the tokenizer.json. Raises DataError where a part of the format is missing."""
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        config = _json(folder / TOKENIZER_CONFIG, files)
        template = _template(folder, config, files)
        tokens = {item["content"]: item for item in table.get("added_tokens") or ()}
        control = {text: item["id"] for text, item in tokens.items() if item.get("special")}
        texts = {
            key: text for key in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (text := _token_text(config.get(key))) in control
        }  # fmt: skip
        if "eos_token" not in texts:
            raise DataError(
                f"{folder / TOKENIZER_CONFIG}: eos_token is not a special added token, and no turn would end"
            )
        eos = control[texts["eos_token"]]
        stops = _json(folder / GENERATION_CONFIG, files).get("eos_token_id") or []
        stop_ids = frozenset({eos, *(stops if isinstance(stops, list) else [stops])})
        bos = control.get(texts.get("bos_token", ""), eos)
        pad = control.get(texts.get("pad_token", ""), eos)
        if pad in (
            bos,
            eos,
        ):  # some models pad with their eos, which would leave it out of pretraining's loss
            pad = next((token for token in reversed(control.values()) if token not in (bos, eos)), eos)
        added = {text: item["id"] for text, item in tokens.items() if text not in control}
        return ImportedFormat(control, added, bos, eos, pad, stop_ids, texts, template, files)

    @property
    def config_ids(self) -> dict[str, int]:
        """The special ids for config.json, as far as the tokenizer names them."""
        return {
            f"{key}_id": self.control[text] for key, text in self.special_texts.items() if key != "unk_token"
        }

    def save(self, folder: Path) -> None:
        """Write the files as they were read."""
        for name, content in self.files.items():
            write_bytes(folder / name, content)

    def parts(self, messages: Sequence[Message], generation_prompt: bool = False) -> list[RenderedPart]:
        """The conversation as control tokens and texts. Raises DataError for messages that the template refuses."""
        parts, in_loss, ended = [], False, False
        for part in self._parts.split(self._render(messages, generation_prompt)):
            token = (self.control | self.added).get(part)
            if part in (_BEGIN, _END):
                in_loss, ended = part == _BEGIN, part == _END
            elif token is not None:
                parts.append(RenderedPart(in_loss or (ended and token in self.stop_ids), token))
                ended = False
            elif part:
                parts.append(RenderedPart(in_loss, text=part.replace(_BREAK, "")))
        return parts

    @cached_property
    def _parts(self) -> re.Pattern[str]:
        """What separates texts: added tokens and the marks of the loss."""
        return _any_of([*self.control, *self.added, _BEGIN, _END])

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return _any_of(self.control)

    @cached_property
    def _compiled(self) -> Any:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.globals["raise_exception"] = _raise
        environment.filters["tojson"] = lambda value, **keys: json.dumps(value, ensure_ascii=False, **keys)
        return environment.from_string(_GENERATION.sub("", self.template))

    @cached_property
    def _strips(self) -> bool:
        """Whether the template strips the blanks around contents, which the marks around an answer would prevent."""
        turns = [{"role": role, "content": "  x  "} for role in ("user", "assistant")]
        return "x" in (text := self._render_turns(turns, False)) and "  x  " not in text

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": self._content(message)} | (
            {"name": message.name} if message.role == "tool" else {}) for message in messages]  # fmt: skip
        return self._render_turns(turns, generation_prompt)

    def _render_turns(self, turns: list[dict[str, str]], generation_prompt: bool) -> str:
        try:
            rendered: str = self._compiled.render(
                messages=turns, tools=None, add_generation_prompt=generation_prompt, **self.special_texts
            )
        except (TemplateError, TypeError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"the imported chat template refuses a conversation of {roles}: {error}"
            ) from None
        return rendered

    def _content(self, message: Message) -> str:
        text = _MARKS.sub("", message.content.strip() if self._strips else message.content)
        text = self._control.sub(lambda match: match[0][0] + _BREAK + match[0][1:], text)
        in_loss = message.role == "assistant" and message.in_loss
        return f"{_BEGIN}{text}{_END}" if in_loss else text


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """One of `texts`, of several the longest, as a group."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})")


def _template(folder: Path, config: dict[str, Any], files: dict[str, bytes]) -> str:
    """The chat template. Raises DataError where there is none, or several without a default."""
    if TEMPLATE in files:
        return files[TEMPLATE].decode("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {item["name"]: item["template"] for item in template}.get("default")
    if not isinstance(template, str):
        raise DataError(
            f"{folder} has no chat template and not the control tokens of this package. To train it further or to chat "
            "with it, import it with `groundup import FOLDER TARGET --control-tokens`"
        )
    return template


def _json(path: Path, files: dict[str, bytes]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(files.get(path.name, b"{}"))
    except ValueError as error:
        raise DataError(f"{path} is not readable JSON: {error}") from None
    return content


def _token_text(value: Any) -> str:
    """The text of a token in tokenizer_config.json, which is a string or a table."""
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _raise(message: str) -> None:
    raise TemplateError(message)
