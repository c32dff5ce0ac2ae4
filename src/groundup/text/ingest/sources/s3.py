"""Source `s3`: objects in S3 or a compatible store (MinIO, R2, Ceph ...), read through Daft.

in:  `urls` with globs (`s3://bucket/prefix/**/*.jsonl.gz`)
out: the documents of the files, by format

Credentials come from the standard AWS locations (environment, profile, instance role), never from a blueprint. The
ETag of an object is the digest of its content: a fingerprint downloads nothing. Daft's listing has no ETags; they are
requested through Arrow, many at a time. An object without one is downloaded and hashed.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, ClassVar

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.core.errors import DataError
from groundup.text.ingest import remote
from groundup.text.ingest.file_source import ReadingRecipe
from groundup.text.ingest.types import SourceFile, SourceRecipe

_MAGIC = re.compile(r"[*?\[{]")
_REQUESTS = 32
"""Requests for ETags at a time."""
_FIXED = re.compile(r"s3://[^*?\[{]*/")
"""Part of a URL before the first folder with a wildcard."""


class S3(ReadingRecipe):
    """Objects of a bucket in S3, MinIO or another S3-compatible store.

    Locations are not part of the fingerprint; contents are.
    """

    not_identity: ClassVar[frozenset[str]] = SourceRecipe.not_identity | {
        "urls",
        "endpoint_url",
        "region",
        "anonymous",
    }

    urls: tuple[str, ...] = Field(
        default=(), description="objects, globs, or prefixes that end with / (`s3://bucket/folder/`)"
    )
    endpoint_url: str = Field(default="", description="endpoint of the store; empty = AWS")
    region: str = Field(default="", description="region of the bucket; empty = detected")
    anonymous: bool = Field(default=False, description="access without credentials, for public buckets")

    @field_validator("urls")
    @classmethod
    def _are_s3(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.match(r"s3://[\w.-]+", url):
                raise PydanticCustomError("url", "`{url}` is no s3://bucket/... URL", {"url": url})
        return value

    def files(self) -> Iterator[SourceFile]:
        """Every object that matches `urls`, by path. Raises DataError for a URL that matches nothing or can't be
        listed.
        """
        if not self.urls:
            raise DataError(
                'ingest.sources: `s3` needs urls, e.g. urls = ["s3://bucket/folder/**/*.jsonl.gz"].'
            )
        patterns = [_pattern(url) for url in self.urls]
        sizes = {url: size for pattern in patterns for url, size in self._list(pattern)}
        folders = {_FIXED.match(pattern)[0] for pattern in patterns}  # type: ignore[index]
        root = folders.pop() if len(folders) == 1 else "s3://"
        urls = sorted(sizes)
        for url, etag in zip(urls, self._etags(urls), strict=True):
            yield SourceFile(url.removeprefix(root), url, bytes=sizes[url], digest=etag)

    def open(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """The object's bytes in a temporary file. Raises Unreadable, and DataError if the store doesn't respond."""
        return remote.download(file, self._config(), self.max_file_bytes)

    def _config(self) -> Any:
        return remote.io_config(
            endpoint_url=self.endpoint_url, region_name=self.region, anonymous=self.anonymous
        )

    def _etags(self, urls: list[str]) -> list[str]:
        """The ETag of each object; "" where the store gives none, or the object is gone."""
        from pyarrow import fs

        bucket = urls[0].removeprefix("s3://").split("/")[0]
        try:
            region = self.region or ("us-east-1" if self.endpoint_url else fs.resolve_s3_region(bucket))
        except OSError:
            return [""] * len(urls)
        store = fs.S3FileSystem(
            anonymous=self.anonymous,
            region=region,
            endpoint_override=self.endpoint_url or None,
            connect_timeout=remote.CONNECT_SECONDS,
            request_timeout=remote.READ_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=remote.TRIES),
        )

        def etag(url: str) -> str:
            try:
                with store.open_input_stream(url.removeprefix("s3://"), compression=None) as object_:
                    metadata: Any = object_.metadata()
            except (OSError, ValueError):
                return ""
            return str(metadata.get("ETag", b"").decode("ascii", "replace").strip('"'))

        with ThreadPoolExecutor(_REQUESTS) as threads:
            return list(threads.map(etag, urls))

    def _list(self, pattern: str) -> list[tuple[str, int]]:
        """(URL, bytes) of matching objects."""
        from daft.daft import io_glob

        try:
            entries = io_glob(pattern, io_config=self._config())
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(_explained(pattern, error)) from None
        listed = [(each["path"], each["size"] or 0) for each in entries if each["type"] == "File"]
        exact = _MAGIC.search(pattern) is None  # else Daft takes an object's name for a folder's, too
        meant = [(url, size) for url, size in listed if (url == pattern if exact else not url.endswith("/"))]
        if not meant:
            raise DataError(_explained(pattern, FileNotFoundError()))
        return meant


def _pattern(url: str) -> str:
    bucket_alone = "/" not in url.removeprefix("s3://")
    return f"{url}/**" if bucket_alone else f"{url}**" if url.endswith("/") else url


def _explained(pattern: str, error: Exception) -> str:
    """Error message for a failed listing, with a remedy."""
    message, start = str(error), f"ingest.sources: {pattern!r} "
    if "NoSuchBucket" in message:
        return f"{start}names a bucket that doesn't exist there. Check the spelling and endpoint_url."
    if isinstance(error, FileNotFoundError):
        return f"{start}matches no object. Check the spelling; a folder is written with / at its end."
    if "credentials" in message:
        return (
            f"{start}can't be listed: no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
            "AWS_PROFILE in the environment, or anonymous = true for a public bucket."
        )
    if any(code in message for code in ("AccessDenied", "Unhandled Error", "InvalidAccessKeyId")):
        return (
            f"{start}may not be listed with these credentials ({remote.reason(error)}). Check AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID in the environment, and `anonymous`."
        )
    return (
        f"{start}can't be listed: {remote.reason(error)}, after {remote.TRIES} tries. "
        "Check the network, endpoint_url and region."
    )
