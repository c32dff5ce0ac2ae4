"""The corpus engine against datatrove: near-duplicates alone, and a whole curation from WARC.

in:  a data folder; a Python that has datatrove (see datatrove_peer.py); FOLDER for both corpora, made once
out: two tables: seconds, MB/s and ratios; recall and precision of the near-duplicates

    .venv/bin/python benchmarks/curation.py FOLDER --data ../shared/data --peer PEER/bin/python

Both sides read the same bytes with two processes on the same machine, one after the other. The whole curation is main
text, language, the Gopher, C4 and FineWeb rules, a fastText classifier, privacy, MinHash. datatrove's seconds are
those of its executors alone; ours are of the whole command `groundup run --until curate`, start and imports included.
datatrove extracts with trafilatura, the only extractor it has: ours is shown with its default and with trafilatura.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dedup
import planted_corpus
import warc_corpus
from dedup import WORKERS

from groundup.text.curate.dedup import Dedup
from groundup.text.curate.steps import language

LABELLED = "web/quality/dclm_majority_data.jsonl.gz"
BLUEPRINT = """\
name = "crawl-{extractor}"
[runtime]
workers = {workers}
[[ingest.sources]]
use = "files"
paths = ["{folder}/warc"]
extractor = "{extractor}"
[[classifiers]]
name = "quality"
labelled = ["{data}/{labelled}"]
[curate]
steps = [
    {{ use = "language", keep = ["en"] }},
    {{ use = "gopher_repetition" }}, {{ use = "gopher_quality" }}, {{ use = "c4" }}, {{ use = "fineweb" }},
    {{ use = "model_filter" }}, {{ use = "privacy" }},
]
"""


def ours(folder: Path, data: Path, extractor: str) -> tuple[float, dict[str, Any], Path]:
    """Seconds of `groundup run --until curate` with the classifier trained before; metrics; the classifier's model."""
    workspace = folder / f"workspace-{extractor}"
    shutil.rmtree(workspace, ignore_errors=True)
    blueprint = folder / f"crawl-{extractor}.toml"
    spelled = {
        "extractor": extractor,
        "folder": folder.resolve(),
        "data": data.resolve(),
        "labelled": LABELLED,
    }
    blueprint.write_text(BLUEPRINT.format(workers=WORKERS, **spelled))
    trained = _train(blueprint, workspace)
    began = time.perf_counter()
    _groundup(blueprint, workspace, "curate")
    seconds = time.perf_counter() - began
    made = json.loads((workspace / "runs" / f"crawl-{extractor}.json").read_text())["stages"]
    manifest = json.loads((workspace / "artifacts" / made["curate"] / "manifest.json").read_text())
    return seconds, manifest["metrics"], trained


def _train(blueprint: Path, workspace: Path) -> Path:
    """The classifier alone: a run of the same blueprint finds it made."""
    tiny = blueprint.with_suffix(".txt")
    tiny.write_text("A page to read before the classifier is trained. " * 20)
    _groundup(blueprint, workspace, "classifier-quality", "--data", str(tiny))
    (model,) = (workspace / "artifacts").glob("classifier-*/model.bin")
    return model


def _groundup(blueprint: Path, workspace: Path, until: str, *more: str) -> None:
    command = [
        sys.executable,
        "-m",
        "groundup.cli",
        "run",
        str(blueprint),
        "--workspace",
        str(workspace),
        "--quiet",
    ]
    subprocess.run([*command, "--until", until, *more], check=True, stdout=subprocess.DEVNULL)


def datatrove(python: str, folder: Path, model: Path, tokenizer: str) -> dict[str, float]:
    """Seconds of each of the peer's stages."""
    out = folder / f"datatrove-{tokenizer}"
    shutil.rmtree(out, ignore_errors=True)
    script = Path(__file__).with_name("datatrove_crawl.py")
    command = [python, str(script), str(folder), str(out), str(language.MODEL), str(model), tokenizer]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"]


def crawl(folder: Path, data: Path, peer: str | None) -> None:
    """Print the table of the whole curation."""
    megabytes = json.loads((folder / "size.json").read_text())
    rows, rate = [], {}
    model = Path()
    for extractor in ("resiliparse", "trafilatura"):
        seconds, metrics, model = ours(folder, data, extractor)
        rate[extractor] = megabytes / seconds
        kept = f"{metrics['documents_kept']} of {metrics['documents_read']}"
        rows.append(f"| groundup, {extractor} | {seconds:.1f} | {megabytes / seconds:.2f} | | | {kept} |")
    for tokenizer in ("whitespace", "english") if peer else ():
        steps = datatrove(str(peer), folder, model, tokenizer)
        seconds = sum(steps.values())
        spelled = ", ".join(f"{name} {value:.1f}" for name, value in steps.items())
        ratios = " | ".join(f"{rate[extractor] * seconds / megabytes:.1f}" for extractor in rate)
        rows.append(
            f"| datatrove, {tokenizer} | {seconds:.1f} ({spelled}) | {megabytes / seconds:.2f} | {ratios} | |"
        )
    print(f"\nFrom WARC: {megabytes:.0f} MB of HTML")
    print("| | seconds | MB/s | groundup is x as fast | with trafilatura x | documents kept |")
    print("\n".join(["|---|---|---|---|---|---|", *rows]))


def main(folder: Path, data: Path, peer: str | None, megabytes: int, crawl_megabytes: int) -> None:
    """Make what is missing, then measure."""
    if not (folder / "planted" / "truth.json").exists():
        planted_corpus.build(folder / "planted", megabytes, data)
    if not (folder / "crawl" / "size.json").exists():
        size = warc_corpus.build(folder / "crawl", crawl_megabytes, data)
        (folder / "crawl" / "size.json").write_text(json.dumps(size))
    dedup.main(folder / "planted", peer, Dedup())
    crawl(folder / "crawl", data, peer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", help="the Python of an environment with datatrove")
    parser.add_argument("--megabytes", type=int, default=200, help="of text, for the near-duplicates")
    parser.add_argument("--crawl-megabytes", type=int, default=200, help="of HTML, for the whole curation")
    given = parser.parse_args()
    main(given.folder, given.data, given.peer, given.megabytes, given.crawl_megabytes)
