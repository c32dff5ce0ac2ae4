"""Tokenizer: text <-> token ids, with control tokens that no text can produce.

in:  text, or ids
out: ids, or text; `tokenizer.json` and `tokenizer_config.json` as transformers and vLLM read them

`encode` and `encode_batch` never return a control id. transformers' own tokenizer does convert a spelled-out control
token, also in `apply_chat_template`: other programs must sanitise their input.
"""

import codecs
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_json, write_text
from groundup.core.errors import DataError
from groundup.tokens.bpe import EncodedBatch, byte_table, encoder
from groundup.tokens.chat_template import CHAT_TEMPLATE
from groundup.tokens.imported import ImportedFormat

SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|pad|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end_of_turn|>",
)
"""Control tokens. Their ids follow the vocabulary's, in this order."""


class Tokenizer:
    """A trained tokenizer. Ids: BPE vocabulary first, then `SPECIALS`; an imported one has its own control tokens."""

    def __init__(self, table: dict[str, Any], imported: ImportedFormat | None = None) -> None:
        """imported: control tokens and chat template of a published chat model, in place of this package's."""
        self._table, self.imported = table, imported
        if imported is not None:
            self._bytes = _imported_bytes(table, imported)
            self.vocab_size = len(self._bytes)
            self.bos, self.eos, self.pad, self.stop_ids = (
                imported.bos, imported.eos, imported.pad, imported.stop_ids)  # fmt: skip
            self.system = self.user = self.assistant = self.end_of_turn = imported.eos
            return
        vocabulary = sorted(table["model"]["vocab"].items(), key=lambda item: item[1])
        spelled = byte_table()
        self._bytes = [bytes(spelled[char] for char in token) for token, _ in vocabulary]
        first = len(self._bytes)
        self.vocab_size = first + len(SPECIALS)
        self.bos, self.eos, self.pad, self.system, self.user, self.assistant, self.end_of_turn = range(
            first, self.vocab_size
        )
        self.stop_ids = frozenset({self.end_of_turn, self.eos, self.bos})
        """the ids that end a response"""

    @cached_property
    def _encoder(self) -> Any:
        return encoder(self._table)

    @property
    def is_normalized(self) -> bool:
        """Whether texts are normalized to NFC before they are encoded."""
        return bool(self._table.get("normalizer"))

    @property
    def encoder_name(self) -> str:
        """Library that encodes: gigatoken, or tokenizers where gigatoken is missing or differs."""
        name: str = self._encoder.name
        return name

    @staticmethod
    def from_merges(table: dict[str, Any]) -> "Tokenizer":
        """Tokenizer of a freshly trained table, with control tokens added."""
        first = len(table["model"]["vocab"])
        added = [
            {
                "id": first + number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, name in enumerate(SPECIALS)
        ]
        return Tokenizer({**table, "added_tokens": added, "post_processor": _begin_with(first)})

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        """Read `tokenizer.json` from an artifact or checkpoint; of an imported chat model also its chat template.

        Raises DataError if it is unusable.
        """
        path = folder / "tokenizer.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            special_tokens = [item["content"] for item in table["added_tokens"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no tokenizer that can be read: {error!r}") from None
        if tuple(special_tokens) != SPECIALS:
            return Tokenizer(table, ImportedFormat.load(folder, table))
        return Tokenizer(table)

    def save(self, folder: Path, chat: bool = False, max_length: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json.

        chat: for a model trained on conversations, whose eos token is the end of a turn, and whose BOS comes from
        the chat template alone, so that no client adds a second one. max_length: the model's context.
        """
        if self.imported is not None:
            self.imported.save(folder)
            return
        write_text(folder / "tokenizer.json", json.dumps(self._table, ensure_ascii=False))
        eos = SPECIALS[-1] if chat else SPECIALS[1]
        named = (SPECIALS[0], eos, SPECIALS[2])
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIALS[0],
            "eos_token": eos,
            "pad_token": SPECIALS[2],
            "additional_special_tokens": [name for name in SPECIALS if name not in named],
            "add_bos_token": not chat,
            "clean_up_tokenization_spaces": False,
        }
        if max_length is not None:
            config["model_max_length"] = max_length
        if chat:
            config["chat_template"] = CHAT_TEMPLATE
        write_json(folder / "tokenizer_config.json", config)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a control id."""
        ids: list[int] = self._encoder.encode([text]).ids.tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text; never a control id."""
        return self.encode_arrays(texts).lists() if texts else []

    def encode_arrays(self, texts: Sequence[str]) -> EncodedBatch:
        """Ids of every text as arrays (uint32), much faster for a corpus."""
        batch: EncodedBatch = self._encoder.encode(texts)
        return batch

    def token_bytes(self, token: int) -> bytes:
        """Bytes of a token; empty for a control token."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def name(self, token: int) -> str:
        """Text of a control token."""
        if self.imported is not None:
            return next((text for text, own in self.imported.control.items() if own == token), "")
        return SPECIALS[token - len(self._bytes)]

    def is_special(self, token: int) -> bool:
        """Whether a token is a control token."""
        if self.imported is not None:
            return not self.token_bytes(token)
        return token >= len(self._bytes)

    def decode(self, ids: Sequence[int], specials: bool = False) -> str:
        """Text of ids; invalid UTF-8 becomes U+FFFD. With `specials`, control tokens are written out."""
        parts = [
            self.name(token).encode() if specials and self.is_special(token) else self.token_bytes(token)
            for token in ids
        ]
        return b"".join(parts).decode("utf-8", "replace")


class StreamDecoder:
    """Incremental decoder of ids; never emits incomplete characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Text completed by `token`; empty for control tokens."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """Remaining text: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


def is_own_table(table: dict[str, Any]) -> bool:
    """Whether a tokenizer.json has the control tokens of this package, and no other added tokens."""
    return tuple(item.get("content") for item in table.get("added_tokens") or ()) == SPECIALS


def _imported_bytes(table: dict[str, Any], imported: ImportedFormat) -> list[bytes]:
    """Bytes of every id; none of a control token or of an id that nothing has.

    Raises DataError for another tokenizer than a byte-level BPE, and for a normalizer other than NFC.
    """
    spelled, model = byte_table(), table.get("model") or {}
    vocabulary, normalizer = model.get("vocab"), (table.get("normalizer") or {}).get("type", "NFC")
    special = imported.control.keys() | imported.added.keys()
    if model.get("type") != "BPE" or not isinstance(vocabulary, dict) or normalizer != "NFC":
        raise DataError(
            f"tokenizer.json is a {model.get('type')} with the normalizer {normalizer}: only byte-level BPE without a "
            "normalizer or with NFC can be trained further with its own chat template"
        )
    texts = {token: text for text, token in vocabulary.items() if text not in special}
    foreign = next((text for text in texts.values() if any(char not in spelled for char in text)), None)
    if foreign is not None:
        raise DataError(f"tokenizer.json is no byte-level BPE: its token {foreign!r} encodes no bytes")
    bytes_by_id = {token: bytes(spelled[char] for char in text) for token, text in texts.items()}
    bytes_by_id |= {token: text.encode() for text, token in imported.added.items()}
    last = max([*bytes_by_id, *imported.control.values()])
    return [bytes_by_id.get(token, b"") for token in range(last + 1)]


def _begin_with(bos: int) -> dict[str, Any]:
    """Post-processor by which other programs prepend the document mark to every text, as in training."""
    mark = {"SpecialToken": {"id": SPECIALS[0], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [mark, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [mark, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {SPECIALS[0]: {"id": SPECIALS[0], "ids": [bos], "tokens": [SPECIALS[0]]}},
    }
