"""Standard streams of every command: any locale, any bytes, any end of a pipe; never a traceback."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from groundup.cli import main
from groundup.core.records import Message
from groundup.core.standard_streams import prepare_standard_streams, print_json
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer
from tiny import corpus, groundup

COMMAND = [sys.executable, "-m", "groundup.cli"]
LOCALES: dict[str, dict[str, str | None]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C without UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
COMMANDS = (
    ("--help",),
    ("plugins",),
    ("plugins", "--json"),
    ("status", "{folder}/mine.toml"),
    ("show", "füße"),
    ("show", "füße", "--json"),
    ("show", "füße", "ingest"),
    ("inspect", "füße"),
    ("inspect", "füße", "--search", "Straße"),
    ("inspect", "füße", "--search", "Straße", "--json"),
    ("clean", "--json"),
    ("diff", "füße", "füße"),
    ("show", "nicht-dä"),
)


def environment(changes: dict[str, str | None], folder: Path) -> dict[str, str]:
    variables = {
        **os.environ,
        "GROUNDUP_WORKSPACE": os.fspath(folder / "workspace"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        **changes,
    }
    return {name: value for name, value in variables.items() if value is not None}


def run(
    folder: Path,
    argv: Sequence[str],
    changes: dict[str, str | None] | None = None,
    stdin: bytes = b"",
    shell: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own; `shell`: redirections after it."""
    command = [*COMMAND, *(part.format(folder=folder) for part in argv)]
    if shell:
        command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command]
    return subprocess.run(
        command,
        input=stdin,
        env=environment(changes or {}, folder),
        capture_output=True,
        cwd=folder,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to ingest, with names and texts that few encodings have."""
    folder = tmp_path_factory.mktemp("straße")
    texts = corpus(folder / "texts", 3)
    text = "Die Straße ist lang und führt über die Brücke. 街道很长。 " * 5 + "\U0001f600 \u202e\u0085"
    (texts / "füße.txt").write_text(text, encoding="utf-8")
    with contextlib.suppress(OSError):
        Path(os.fsdecode(os.fsencode(texts) + b"/\xff.txt")).write_text(text, encoding="utf-8")
    blueprint = folder / "mine.toml"
    groundup("init", str(blueprint), "--data", str(texts))
    workspace = str(folder / "workspace")
    groundup("run", str(blueprint), "--until", "ingest", "--quiet", "--workspace", workspace, "--name", "f")
    for path in (folder / "workspace" / "runs").rglob("*"):  # a name that the command line refuses
        if path.is_file():
            path.write_text(path.read_text().replace('"name": "f"', '"name": "füße"'))
    (folder / "workspace" / "runs" / "f").rename(folder / "workspace" / "runs" / "füße")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chat model in `model`."""
    folder = tmp_path_factory.mktemp("modèle")
    tokenizer = Tokenizer.from_merges(bpe.train(iter(["über die straße 街道 " * 30]), 290))
    decoder = Decoder(DecoderConfig(tokenizer.vocab_size, 32, 1, 2, 2, 16, 64, max_seq_len=64))
    decoder.init_weights(0)
    with torch.no_grad():
        decoder.lm_head.weight.mul_(20)
    (folder / "model").mkdir()
    save_model(folder / "model", decoder, tokenizer, chat=True)
    return folder


def check(done: subprocess.CompletedProcess[bytes], *statuses: int) -> None:
    said = done.stderr.decode("utf-8", "replace")
    for mark in ("Traceback", "Exception ignored", "BrokenPipe", "UnicodeEncode", "UnicodeDecode"):
        assert mark not in said + done.stdout.decode("utf-8", "replace"), said
    assert done.returncode in statuses, said


ALL_IN_ONE = """
import json, sys
from groundup.cli import main
for argv in json.loads(sys.argv[1]):
    try:
        main(argv)
    except SystemExit as left:
        print('status', left.code)
"""


def test_no_command_fails_for_what_the_encoding_lacks(folder: Path) -> None:
    argvs = [[part.format(folder=folder) for part in argv] for argv in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE, json.dumps(argvs)],
        env=environment(LOCALES["ascii"], folder),
        capture_output=True,
        timeout=300,
    )
    check(done, 0)
    assert done.stdout.isascii() and done.stderr.isascii()
    statuses = [line for line in done.stdout.splitlines() if line.startswith(b"status")]
    assert set(statuses) <= {b"status None", b"status 0", b"status 2"}
    assert statuses.count(b"status 2") == 1


def test_chat_reads_and_writes_any_bytes_in_any_locale(model: Path) -> None:
    stdin = "über die 街道?\n".encode() + b"\xff\xfe\x80 what?\n"
    done = run(
        model, ["chat", "model", "--max-tokens", "6", "--json"], LOCALES["C without UTF-8 mode"], stdin
    )
    check(done, 0)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ids = prompt([Message("user", "über die 街道?")], Tokenizer.load(model / "model"))
    assert (len(answers), answers[0]["prompt_tokens"]) == (2, len(ids))


@pytest.mark.parametrize("shell", ["<&- >&- 2>&-", "2>&1 | head -c 1"])
def test_a_closed_or_full_stream_is_no_traceback(tmp_path: Path, shell: str) -> None:
    check(run(tmp_path, ["show", "nobody"], shell=shell), 0, 2)


def test_chat_ends_where_nobody_reads(model: Path) -> None:
    check(run(model, ["chat", "model", "--max-tokens", "6"], stdin=b"what?\n" * 5, shell="| head -c 1"), 0, 2)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_prompt_is_refused(model: Path, empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["chat", str(model / "model"), "-p", empty])
    assert left.value.code == 2
    assert "groundup: --prompt is empty. Give a question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "hint"), [(["run"], ". Run the same command again to resume"), (["chat"], "")]
)
def test_only_a_run_resumes_after_ctrl_c(
    argv: list[str], hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("groundup.cli.app", interrupt)
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert (left.value.code, capsys.readouterr().err) == (130, f"\ngroundup: interrupted{hint}.\n")


@pytest.mark.parametrize("text", ["a\u0085\u202e\u009b", "ü街😀", "\udcff"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_valid_in_any_encoding(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    prepare_standard_streams()
    print_json({"text": text})
    assert json.loads(raw.getvalue().decode(encoding)) == {"text": text}
    assert not {"\u0085", "\u202e", "\u009b"} & set(raw.getvalue().decode(encoding))
