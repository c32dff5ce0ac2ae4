"""The command line: mistakes end with exit code 2 and one message a newcomer can act on."""

import contextlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from groundup.cli import app, main
from groundup.core.store import Store
from tiny import corpus, groundup


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said on stderr when `argv` is refused, before anything is built."""
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pretrain.dept=6", "pretrain.dept: unknown key. Did you mean `depth`?"),
        ("pretrian.depth=6", "pretrian: unknown key. Did you mean `pretrain`?"),
        ("pretrain.depth=-3", "pretrain.depth = -3: Input should be greater than or equal to 1"),
        ("pretrain.depth=deep", "pretrain.depth = 'deep': Input should be a valid integer"),
        ('pretrain.optimizer.use="muno"', "Did you mean `muon`?"),
        ("pretrain.architecture.n_heads=5", "n_heads = 5 does not divide d_model = 256"),
        ("align.finetune.epoch=2", "unknown key. Did you mean `epochs`?"),
        (
            "align.align.inputs.reward=finetune",
            "inputs.reward = `finetune` is no reward model made before it",
        ),
        ("tokenizer.vocab_size=10", "tokenizer.vocab_size = 10"),
        ("runtime.device=gpu", "runtime.device = 'gpu'"),
        ("name=../../etc", "name = '../../etc'"),
        ("pretrain", "write section.key=value"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_built(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, "run", "--workspace", str(tmp_path / "w"), "--set", override)
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[pretrain]\ndept = 4\n\n[tokenize]\nseq_len = 0\n\n[[align]]\nname = "x"\nuse = "sftt"\n'
    )
    err = refused(capsys, "run", str(file))
    for part in ("mine.toml: pretrain.dept", "mine.toml: tokenize.seq_len = 0", "Did you mean `sft`?"):
        assert part in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "nothing.toml"], "nothing.toml: there is no such file. `groundup init` writes one"),
        (["run", "--data", "nowhere"], "--data nowhere: there is no such file or folder"),
        (["run", "."], "is a folder. To train on the texts in it: groundup run --data"),
        (["rnu"], "rnu"),
        (["show", "nobody"], "nobody"),
        (["chat"], "there is no run in"),
        (["inspect"], "there is no run in"),
        (["inspect", "nobody"], "there is no run `nobody`"),
        (["inspect", "nothing.toml"], "nothing.toml: there is no such file"),
        (["chat", "--temperature", "-1"], "--temperature -1.0: choose a number from 0 to 10"),
        (["init", "--preset", "stdlb"], "there is no preset `stdlb`. Did you mean `stdlib`?"),
    ],
)
def test_commands_that_cannot_be_done_say_why(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_init_writes_a_blueprint_that_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    groundup("init", "mine.toml")
    text = (tmp_path / "mine.toml").read_text()
    assert "# number of layers; width and other sizes are derived from it" in text
    capsys.readouterr()
    views = []
    for argv in (["status", "mine.toml", "--json"], ["status", "--json"]):
        groundup(*argv)
        views.append(json.loads(capsys.readouterr().out))
    assert len(views[0]) == 11
    assert [(item["stage"], item["artifact"]) for item in views[0]] == [
        (item["stage"], item["artifact"]) for item in views[1]]  # fmt: skip
    assert refused(capsys, "init", "mine.toml").startswith("groundup: mine.toml exists already")


def test_show_writes_every_value_of_a_blueprint_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep.toml"
    file.write_text('[[ingest.sources]]\nuse = "stdlib"\n\n[pretrain]\ndepth = 12\n')
    groundup("show", str(file))
    said = tomllib.loads(capsys.readouterr().out)
    assert said["name"] == "deep"
    assert said["pretrain"]["architecture"] | {"d_model": 768, "n_heads": 12, "d_ff": 2048} == (
        said["pretrain"]["architecture"])  # fmt: skip
    assert said["pretrain"]["tokens"] > 0
    assert "runtime" not in said


def test_a_site_is_no_part_of_what_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    views = []
    for runtime in (
        [],
        ["--set", "runtime.threads=1", "--set", "runtime.compile=off", "--set", "runtime.micro_batch=2"],
    ):
        groundup("status", "--json", "--workspace", str(tmp_path), *runtime)
        views.append([item["artifact"] for item in json.loads(capsys.readouterr().out)])
    assert views[0] == views[1]


def test_inspect_shows_a_corpus_before_and_after_curation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path / "texts")
    (tmp_path / "texts" / "nothing.txt").write_text("")
    groundup("init", "mine.toml", "--data", "texts")
    groundup("run", "mine.toml", "--until", "ingest", "--quiet")
    capsys.readouterr()
    groundup("inspect", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["title"] == "texts"
    assert said["curated"] is False and said["read"]["documents"] == 32
    groundup("run", "mine.toml", "--until", "curate", "--quiet")
    capsys.readouterr()
    groundup("inspect", "mine.toml", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["curated"] and all(check["holds"] for check in said["checks"])
    groundup("inspect", "--search", "module_7.py", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [document["path"] for document in found] == ["module_7.py"]
    groundup("inspect", "--document", found[0]["id"][:8])
    assert "read_harbor" in capsys.readouterr().out
    groundup("inspect", "--page", "corpus.html")
    assert capsys.readouterr().out == "corpus.html\n" and (tmp_path / "corpus.html").stat().st_size > 40_000
    assert "no document's id begins with `zz`" in refused(capsys, "inspect", "--document", "zz")


def test_plugins_are_listed_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    groundup("plugins", "--json")
    slots = json.loads(capsys.readouterr().out)
    assert slots["train.optimizers"]["muon"]["fields"]["momentum"] == 0.95
    assert slots["model.architectures"]["qwen3"]["about"]


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from groundup.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'pyarrow', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("run", "status", "show", "inspect", "diff", "chat", "init", "plugins"):
        assert f"  {command}" in done.stdout or f" {command} " in done.stdout


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_every_option_has_a_description(command: str) -> None:
    arguments = app[command].assemble_argument_collection(parse_docstring=True)
    assert [argument.name for argument in arguments if not argument.parameter.help] == []


def test_the_descriptions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["run", "--help"])
    assert "stop after this stage, e.g. curate" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_stopped_early_has_no_model_to_chat_with_or_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "w")
    artifact = store.artifact("ingest", "0" * 64, "raw_corpus")
    artifact.path.mkdir(parents=True)
    manifest = {"fingerprint": "0" * 64, "stage": "ingest", "kind": "raw_corpus"}
    (artifact.path / "manifest.json").write_text(json.dumps(manifest))
    store.record_partial_run("mine", {"ingest": artifact}, "ingest")
    for argv in (["chat", "mine"], ["export", "mine", str(tmp_path / "out")]):
        err = refused(capsys, *argv, "--workspace", str(tmp_path / "w"))
        assert "run `mine` has no policy yet: it stopped after `ingest`" in err
