"""Source `hub`: files of a dataset on the Hugging Face Hub or a mirror.

in:  `dataset`, `revision`, globs of its files
out: the documents of the files, by format

Daft's own `hf://` is fixed to huggingface.co and exposes no digests, so the listing is read here and Daft downloads
the files over HTTPS. Downloads are verified against the digests of the listing. The token for private datasets is
HF_TOKEN in the environment; it is sent only to the Hub (or the server that HF_ENDPOINT names).
"""

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from pydantic import Field

from groundup.core.errors import DataError
from groundup.text.ingest import remote
from groundup.text.ingest.discover import glob_to_regex
from groundup.text.ingest.file_source import ReadingRecipe
from groundup.text.ingest.types import SourceFile, SourceRecipe

HUB = "https://huggingface.co"
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')
_TRY_AGAIN = {408, 429, 500, 502, 503, 504}


class Hub(ReadingRecipe):
    """Files of a dataset on the Hugging Face Hub or a mirror.

    Names and locations are not part of the fingerprint; content digests are.
    """

    not_identity: ClassVar[frozenset[str]] = SourceRecipe.not_identity | {
        "dataset",
        "include",
        "exclude",
        "revision",
        "endpoint",
    }

    dataset: str = Field(
        default="",
        pattern=r"^((hf://datasets/)?\w[\w.-]*(/\w[\w.-]*)?)?$",
        description="`owner/name` on the Hub, or `hf://datasets/owner/name`",
    )
    include: tuple[str, ...] = Field(default=("**/*.parquet",), description="globs of files to include")
    exclude: tuple[str, ...] = Field(default=(), description="globs of files to exclude")
    revision: str = Field(default="main", min_length=1, description="branch, tag or commit")
    endpoint: str = Field(default=HUB, pattern=r"^https?://[^/]+", description="server URL, for a mirror")

    def files(self) -> Iterator[SourceFile]:
        """Matching files by path, with digests. Raises DataError if there are none, or the Hub doesn't respond."""
        if not self.dataset:
            raise DataError('ingest.sources: `hub` needs a dataset, e.g. dataset = "owner/name".')
        try:
            commit = self._commit()
            listed = self._tree(commit)
        except (KeyError, TypeError):
            raise DataError(f"ingest.sources: {self.endpoint} doesn't answer as the Hub does.") from None
        wanted, unwanted = ([glob_to_regex(glob) for glob in globs] for globs in (self.include, self.exclude))
        any_file = False
        for entry in listed:
            path = entry["path"]
            if any(glob.fullmatch(path) for glob in wanted) and not any(
                glob.fullmatch(path) for glob in unwanted
            ):
                any_file = True
                stored = entry.get("lfs") or entry
                url = f"{self._address('datasets')}/resolve/{quote(commit, safe='')}/{quote(path)}"
                yield SourceFile(path, url, bytes=int(stored["size"]), digest=str(stored["oid"]))
        if not any_file:
            kinds = Counter("".join(PurePosixPath(entry["path"]).suffixes) or "none" for entry in listed)
            has = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common(5)) or "nothing"
            raise DataError(
                f"ingest.sources: no file of dataset {self.dataset!r} matches include = {list(self.include)}. "
                f"By suffix it has: {has}."
            )

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[BinaryIO]:
        """The file's bytes in a temporary file. Raises Unreadable, and DataError if the Hub doesn't respond."""
        with remote.download(file, remote.io_config(self._token()), self.max_file_bytes) as copy:
            if file.digest and _digest(copy, file) != file.digest:
                raise DataError(
                    f"ingest.sources: {file.location} didn't arrive as the Hub describes it. Try again."
                )
            yield copy

    def _address(self, kind: str) -> str:
        return f"{self.endpoint.rstrip('/')}/{kind}/{self.dataset.removeprefix('hf://datasets/')}"

    def _token(self) -> str:
        trusted = {HUB, os.environ.get("HF_ENDPOINT", HUB).rstrip("/")}
        return os.environ.get("HF_TOKEN", "") if self.endpoint.rstrip("/") in trusted else ""

    def _commit(self) -> str:
        """Commit that `revision` points to, so that a concurrent push doesn't mix versions."""
        revision, _ = self._ask(f"{self._address('api/datasets')}/revision/{quote(self.revision, safe='')}")
        return str(revision["sha"])

    def _tree(self, commit: str) -> list[Any]:
        """All files of the listing by path, read page by page."""
        start = f"{self._address('api/datasets')}/tree/{quote(commit, safe='')}"
        entries: dict[str, Any] = {}
        query: str | None = "recursive=true"
        while query:
            page, query = self._ask(f"{start}?{query}")
            before = len(entries)
            entries |= {str(entry["path"]): entry for entry in page}
            if query and len(entries) == before:
                raise DataError(
                    f"ingest.sources: {self.endpoint} gives the same page of its listing without end."
                )
        return [entry for _, entry in sorted(entries.items()) if entry["type"] == "file"]

    def _ask(self, url: str) -> tuple[Any, str | None]:
        """Response as JSON, and the query of the next page."""
        request = Request(url)
        if token := self._token():
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        for tries_left in reversed(range(remote.TRIES)):
            try:
                with urlopen(request, timeout=remote.READ_SECONDS) as answer:
                    following = _NEXT.search(answer.headers.get("Link") or "")
                    return json.load(answer), urlsplit(following[1]).query if following else None
            except HTTPError as error:
                if error.code not in _TRY_AGAIN or not tries_left:
                    raise DataError(self._refused(error.code)) from None
            except (OSError, HTTPException, ValueError) as error:
                if not tries_left:
                    raise DataError(
                        f"ingest.sources: {self.endpoint} can't be reached ({getattr(error, 'reason', error)}), "
                        f"after {remote.TRIES} tries. Check the network and `endpoint`."
                    ) from None
            time.sleep(remote.BACKOFF_SECONDS * 2 ** (remote.TRIES - 1 - tries_left))
        raise AssertionError("unreachable")

    def _refused(self, code: int) -> str:
        what = f"ingest.sources: dataset {self.dataset!r}, revision {self.revision!r}, at {self.endpoint}"
        if code in (401, 403):
            return f"{what} isn't public, or doesn't exist (HTTP {code}). For a private one set HF_TOKEN."
        if code == 404:
            return f"{what} doesn't exist (HTTP 404). Check the spelling."
        return f"{what} can't be listed (HTTP {code}). Try again later."


def _digest(copy: BinaryIO, file: SourceFile) -> str:
    """SHA-256 as for LFS files, or git's blob hash as for small ones, depending on the listing."""
    digest = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(b"blob %d\x00" % file.bytes)
    while chunk := copy.read(1 << 20):
        digest.update(chunk)
    copy.seek(0)
    return digest.hexdigest()
