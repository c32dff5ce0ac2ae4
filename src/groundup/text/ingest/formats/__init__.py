"""One file per file format: bytes -> the texts in them. `detect.py` says which one reads a file.

Every module has one function `read(path, file, options, skip=0) -> Iterator[Text | Note]`, where `file` is a
seekable binary file and `skip` the number of records (of formats that have any) to pass over undecoded.
Nothing in a file is fatal: what can't be read is a Note with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Extractor = Literal["resiliparse", "trafilatura"]


@dataclass(frozen=True, slots=True)
class Options:
    """How files are read, and what they may hold.

    `fields` says which column of a table or JSON line holds which field of a document (text, path, licence,
    language). `file_bytes` bounds a file that has to be held in memory whole, packed or unpacked, and a single
    record of those that are streamed. `expansion` is how many times its size a packed file may unpack to.
    """

    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"text": "text"}))
    extractor: Extractor = "resiliparse"
    file_bytes: int = 256 << 20
    line_bytes: int = 1 << 20
    expansion: float = 200.0
