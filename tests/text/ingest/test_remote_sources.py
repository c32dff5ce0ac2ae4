"""S3 and the Hub against servers on this machine that speak as they do: moto for S3, a stand-in for the Hub."""

import gzip
import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from format_helpers import parquet
from groundup.core.errors import DataError
from groundup.text.ingest import remote
from groundup.text.ingest.ingest import Ingest, external_digest
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.sources.hub import Hub
from groundup.text.ingest.sources.s3 import S3
from groundup.text.ingest.types import ExtractedText, ReadIssue, SourceFile

LINES = gzip.compress(b'{"text": "The keeper lit the lamp."}\n' * 50)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TRIES": 2,
        "BACKOFF_SECONDS": 0.02,
        "CONNECT_SECONDS": 0.5,
        "READ_SECONDS": 0.5,
    }.items():
        monkeypatch.setattr(remote, name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def content(source: S3 | Hub, file: SourceFile) -> bytes:
    with source.open(file) as opened:
        assert opened.seekable()
        return opened.read()


def found(source: S3 | Hub, file: SourceFile) -> list[ExtractedText | ReadIssue]:
    with source.open(file) as opened:
        return list(source.read(file.path, opened))


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# S3


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(store: str) -> Any:
    made = boto3.client(
        "s3",
        endpoint_url=store,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    made.create_bucket(Bucket="books")
    for key, body in {
        "wiki/a/one.jsonl.gz": LINES,
        "wiki/b/zwei größe#?%41.jsonl.gz": b"odd name",
        "wiki/b/readme.md": b"# not meant",
        "wiki/empty.txt": b"",
        "wiki/folder/": b"",
        "other/x.txt": b"x",
    }.items():
        made.put_object(Bucket="books", Key=key, Body=body)
    return made


@pytest.mark.usefixtures("client")
def test_objects_are_listed_by_path_below_the_fixed_part_of_the_url(store: str) -> None:
    source = S3(urls=("s3://books/wiki/**/*.jsonl.gz",), endpoint_url=store)
    files = list(source.files())
    assert [(file.path, file.bytes) for file in files] == [
        ("a/one.jsonl.gz", len(LINES)),
        ("b/zwei größe#?%41.jsonl.gz", 8),
    ]
    assert [content(source, file) for file in files] == [LINES, b"odd name"]


def test_fields_and_licence_are_read_from_objects_as_from_files(store: str, client: Any) -> None:
    client.put_object(Bucket="books", Key="tables/a.csv", Body=b"body,rights\nLamps and ships,CC0\n")
    client.put_object(Bucket="books", Key="tables/b.jsonl.gz", Body=LINES)
    source = S3(
        urls=("s3://books/tables/",),
        endpoint_url=store,
        fields={"text": "body", "licence": "rights"},
        weight=2,
    )
    first, second = ((file, found(source, file)) for file in source.files())
    assert first[1] == [ExtractedText("Lamps and ships", "1", licence="CC0")]
    note = second[1][0]
    assert (
        isinstance(note, ReadIssue)
        and note.detail == "record 1: no 'body'; rows have: text; set fields.text = \"...\""
    )


@pytest.mark.usefixtures("client")
def test_a_folder_means_everything_in_it_and_overlapping_urls_give_each_object_once(store: str) -> None:
    folder = S3(urls=("s3://books/wiki/",), endpoint_url=store)
    assert [file.path for file in folder.files()] == [
        "a/one.jsonl.gz", "b/readme.md", "b/zwei größe#?%41.jsonl.gz", "empty.txt",
    ]  # fmt: skip
    empty = next(file for file in folder.files() if file.path == "empty.txt")
    assert content(folder, empty) == b""
    both = S3(urls=("s3://books/other/x.txt", "s3://books/**/*.txt"), endpoint_url=store)
    assert [file.path for file in both.files()] == ["books/other/x.txt", "books/wiki/empty.txt"]


@pytest.mark.usefixtures("client")
def test_a_large_object_comes_in_pieces(store: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 1000)
    body = bytes(range(256)) * 20
    client.put_object(Bucket="books", Key="large/x.bin", Body=body)
    source = S3(urls=("s3://books/large/",), endpoint_url=store, max_file_bytes=6000)
    (file,) = source.files()
    assert content(source, file) == body
    with pytest.raises(Unreadable, match="too_large"):
        content(S3(max_file_bytes=5000), file)


def test_an_object_that_vanished_or_changed_is_one_files_trouble(store: str, client: Any) -> None:
    client.put_object(Bucket="books", Key="going/x.txt", Body=b"here today")
    source = S3(urls=("s3://books/going/",), endpoint_url=store)
    (file,) = source.files()
    client.put_object(Bucket="books", Key="going/x.txt", Body=b"shorter")
    with pytest.raises(Unreadable, match="changed_since_listed"):
        content(source, file)
    client.delete_object(Bucket="books", Key="going/x.txt")
    with pytest.raises(Unreadable, match="missing"):
        content(source, file)


def test_fingerprints_of_a_bucket_download_nothing_and_follow_its_etags(
    store: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put_object(Bucket="books", Key="kept/größe#?%41.txt", Body=b"old")
    recipe = Ingest(sources=(S3(urls=("s3://books/kept/",), endpoint_url=store),))
    monkeypatch.setattr(remote, "download", lambda *_: pytest.fail("an object was downloaded"))
    before = external_digest(recipe)
    assert external_digest(recipe) == before
    client.put_object(Bucket="books", Key="kept/größe#?%41.txt", Body=b"old")
    assert external_digest(recipe) == before  # the same bytes, written again
    client.put_object(Bucket="books", Key="kept/größe#?%41.txt", Body=b"new")
    assert external_digest(recipe) != before


@pytest.mark.usefixtures("client")
def test_mistakes_of_urls_are_named(store: str) -> None:
    for url, message in (
        ("s3://nobooks/**", "names a bucket that doesn't exist"),
        ("s3://books/nope/*.txt", "matches no object"),
        ("s3://books/wiki", "a folder is written with / at its end"),
    ):
        with pytest.raises(DataError, match=message):
            list(S3(urls=(url,), endpoint_url=store).files())
    with pytest.raises(DataError, match="needs urls"):
        list(S3().files())
    with pytest.raises(ValidationError, match=r"is no s3://bucket"):
        S3(urls=("https://example.org/x",))


def test_a_store_that_refuses_or_doesnt_answer_is_an_error_and_no_wait(
    closed: str, deaf: str, hub: "Server"
) -> None:
    urls, file = ("s3://books/**",), SourceFile("x", "s3://books/x.txt", bytes=5)
    for address in (closed, deaf):
        source = S3(urls=urls, endpoint_url=address)
        with pytest.raises(DataError, match=r"can't be listed: .*Check the network"):
            list(source.files())
        with pytest.raises(DataError, match="can't be read"):
            content(source, file)
    forbidding = S3(urls=urls, endpoint_url=hub.address, anonymous=True)
    hub.refuse = 403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with pytest.raises(DataError, match="may not be listed with these credentials"):
        list(forbidding.files())
    with pytest.raises(Unreadable, match="forbidden"):
        content(forbidding, file)


def test_no_credential_can_stand_in_a_blueprint() -> None:
    for source in (S3, Hub):
        assert not [
            name for name in source.model_fields if any(w in name for w in ("key", "token", "secret"))
        ]


# the Hub

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Server:
    """What the stand-in holds, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: frozenset[str] = frozenset()
    ranges: bool = True
    refuse: tuple[int, bytes] | None = None
    failures: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def entry(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob, "size": len(data)}
        if path in self.large:  # as the Hub shows them: `oid` is the pointer's
            entry |= {"oid": "0" * 40, "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}}
        return entry


@pytest.fixture
def hub() -> Iterator[Server]:
    server = Server(files={
        "README.md": b"# About",
        "data/b.parquet": b"PAR1" + bytes(5000),
        "data/a größe.parquet": b"PAR1 first",
        "data/deep/c.jsonl.gz": LINES,
    }, large=frozenset({"data/b.parquet"}))  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            server.asked.append((url.path, self.headers.get("Authorization")))
            if server.failures:
                server.failures -= 1
                self.answer(503, b"busy")
            elif server.refuse:
                self.answer(*server.refuse)
            elif url.path == "/api/datasets/org/name/revision/refs%2Fpr%2F1":
                self.answer(200, json.dumps({"sha": COMMIT}).encode())
            elif url.path == f"/api/datasets/org/name/tree/{COMMIT}":
                self.tree(parse_qs(url.query))
            elif (
                path := unquote(url.path).partition(f"/datasets/org/name/resolve/{COMMIT}/")[2]
            ) in server.files:
                self.file(server.files[path])
            else:
                self.answer(404, b"nothing here")

        def tree(self, query: dict[str, list[str]]) -> None:
            assert query["recursive"] == ["true"]
            entries = [
                {"type": "directory", "path": "data", "oid": "d", "size": 0},
                *map(server.entry, server.files),
            ]
            start = int(query.get("cursor", ["0"])[-1])
            following = f'<https://elsewhere.example{self.path}&cursor={start + 2}>; rel="next"'
            link = {"Link": following} if start + 2 < len(entries) else {}
            self.answer(200, json.dumps(entries[start : start + 2]).encode(), **link)

        def file(self, data: bytes) -> None:
            asked = self.headers.get("Range")
            if not (asked and server.ranges):
                self.answer(200, data)
                return
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            self.answer(206, part, **{"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

        def answer(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    Thread(target=http.serve_forever, daemon=True, args=(0.02,)).start()
    yield server
    http.shutdown()
    http.server_close()


def dataset(server: Server, **settings: Any) -> Hub:
    return Hub(**({"dataset": "org/name", "endpoint": server.address, "revision": "refs/pr/1"} | settings))


def test_files_of_all_pages_are_listed_with_digests_and_fetched_at_one_commit(hub: Server) -> None:
    source = dataset(hub, include=("data/**",))
    files = list(source.files())
    assert [file.path for file in files] == ["data/a größe.parquet", "data/b.parquet", "data/deep/c.jsonl.gz"]
    assert [content(source, file) for file in files] == [hub.files[file.path] for file in files]
    assert files[1].digest == hashlib.sha256(hub.files["data/b.parquet"]).hexdigest()
    assert all(COMMIT in str(file.location) for file in files)


@pytest.mark.parametrize("ranges", [True, False])
def test_files_come_in_pieces_or_whole_as_the_server_can(
    hub: Server, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHUNK", 1000)
    hub.ranges = ranges
    source = dataset(hub, include=("data/b*",))
    (file,) = source.files()
    assert content(source, file) == hub.files["data/b.parquet"]


def test_what_isnt_as_listed_is_never_read(hub: Server) -> None:
    source = dataset(hub)
    file, _ = source.files()
    hub.files[file.path] = b"PAR1 faked"
    with pytest.raises(DataError, match="didn't arrive as the Hub describes it"):
        content(source, file)
    del hub.files[file.path]
    with pytest.raises(Unreadable, match="missing"):
        content(source, file)


def test_fields_are_read_from_a_dataset_that_is_named_by_its_url(hub: Server) -> None:
    hub.files["data/b.parquet"] = parquet(body=["Lamps and ships"], rights=["CC0"])
    fields = {"text": "body", "licence": "rights"}
    source = dataset(hub, dataset="hf://datasets/org/name", include=("data/b*",), fields=fields)
    (file,) = source.files()
    assert found(source, file) == [ExtractedText("Lamps and ships", "1", licence="CC0")]
    (note,) = found(dataset(hub, include=("data/b*",)), file)
    assert (
        isinstance(note, ReadIssue)
        and note.detail == "no 'text'; rows have: body, rights; set fields.text = \"...\""
    )


def test_a_busy_hub_is_asked_again(hub: Server) -> None:
    hub.failures = 1
    assert len(list(dataset(hub).files())) == 2


def test_mistakes_of_datasets_are_named(hub: Server, closed: str, deaf: str) -> None:
    for settings, message in (
        ({"dataset": ""}, "needs a dataset"),
        ({"dataset": "org/nmae"}, "doesn't exist"),
        ({"include": ("*.csv",)}, r"By suffix it has: \.parquet \(2\), \.md \(1\), \.jsonl\.gz \(1\)"),
        ({"endpoint": closed}, "can't be reached .*Connection refused"),
        ({"endpoint": deaf}, "can't be reached .*timed out"),
    ):
        with pytest.raises(DataError, match=message):
            list(dataset(hub, **settings).files())
    hub.refuse = 401, b""
    with pytest.raises(DataError, match="isn't public, or doesn't exist"):
        list(dataset(hub).files())
    with pytest.raises(ValidationError, match="dataset"):
        dataset(hub, dataset="../../etc")


def test_the_token_goes_to_the_hub_and_to_no_server_that_only_a_blueprint_names(
    hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    source = dataset(hub)
    content(source, next(source.files()))
    assert {token for _, token in hub.asked} == {None}
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    hub.asked.clear()
    content(source, next(source.files()))
    assert {token for _, token in hub.asked} == {"Bearer hf_secret"}


def test_a_file_that_may_not_be_read_stops_the_reading(hub: Server, deaf: str) -> None:
    source = dataset(hub)
    file = next(source.files())
    hub.refuse = 403, b"gated"
    with pytest.raises(DataError, match="that you may read it"):
        content(source, file)
    with pytest.raises(DataError, match="can't be read"):
        content(source, SourceFile("x", f"{deaf}/x", bytes=5))
