"""Real corpora of one file and of one language pass through all stages with a tiny model."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from groundup.cli import main
from tiny import OVERRIDES

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "pretrain"
PARAGRAPHS = SHARED / "multilang" / "xquad_paragraphs.jsonl.gz"
RUNTIME = ("runtime.compile=off", "runtime.threads=1", "runtime.device=cpu")


def paragraphs(folder: Path, language: str, count: int = 200) -> Path:
    """A file with some paragraphs of a language."""
    with gzip.open(PARAGRAPHS, "rt", encoding="utf-8") as lines:
        chosen = [line for line in lines if json.loads(line)["lang"] == language]
    path = folder / f"{language}.jsonl"
    path.write_text("".join(itertools.islice(chosen, count)), encoding="utf-8")
    return path


@pytest.mark.skipif(not PARAGRAPHS.exists(), reason="needs ../shared/data/pretrain/multilang")
@pytest.mark.parametrize("language", ["ru", "th"])
def test_a_corpus_in_another_script_goes_through_all_stages(tmp_path: Path, language: str) -> None:
    sets = (*OVERRIDES, *RUNTIME, "tokenizer.vocab_size=1024", "pretrain.tokens=20_000", "tokenize.seq_len=512",
            "align.finetune.max_tokens=4_000", "align.reward.max_tokens=8_000", "align.align.iterations=1")  # fmt: skip
    options = [part for one in sets for part in ("--set", one)]
    data = paragraphs(tmp_path, language)
    with pytest.raises(SystemExit) as stop:
        main(["run", "--data", str(data), "--workspace", str(tmp_path / "workspace"), *options])
    assert stop.value.code in (0, None)
    stages = json.loads((tmp_path / "workspace" / "runs" / f"{language}.json").read_text())["stages"]
    manifest = json.loads(
        (tmp_path / "workspace" / "artifacts" / stages["data"] / "manifest.json").read_text()
    )
    assert manifest["metrics"]["conversations"] > 100
