"""Artifacts of a fictitious run in the format of real ones, as input for the book."""

import json
import math
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_json, write_text
from groundup.core.records import Document
from groundup.core.stage import Artifact, ArtifactKind
from groundup.model.config import DecoderConfig
from groundup.text.documents import DocumentWriter, RejectsLogEntry, RejectsLogWriter
from groundup.tokens.bpe import train
from groundup.tokens.tokenizer import Tokenizer

ENVIRONMENT = {
    "python": "3.11.7", "platform": "Linux-6.1-x86_64-with-glibc2.36", "cpu": "AMD EPYC 9B14", "cores": 2,
    "libraries": {"groundup": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1", "pyarrow": "21.0.0",
                  "tokenizers": "0.22.1", "safetensors": "0.6.2", "typst": "0.15.0"},
    "commit": "1f0c9a5d7c9e6b1e2f3a4b5c6d7e8f9012345678",
}  # fmt: skip
RUNTIME = {"device": "auto", "threads": 0, "compile": "auto", "micro_batch": 0}
CONFIG = DecoderConfig(
    vocab_size=4096, d_model=256, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=64, d_ff=768, tie_embeddings=True,
)  # fmt: skip
PARAMETERS = 4_196_864
BLUEPRINT = 'name = "stdlib"\n\n[[ingest.sources]]\nuse = "stdlib"\n\n[pretrain]\ndepth = 4\nlr = 0.003\n'
TEXT = '''"""Text wrapping and filling.
"""

def dedent(text):
    """Remove any common leading whitespace from every line in `text`.

    This can be used to make triple-quoted strings line up with the left
    edge of the display, while still presenting them in the source code
    in indented form.
    """
    lines = text.split("\\n")
    margin = len(os.path.commonprefix([line for line in lines if line]))
    return "\\n".join(line[margin:] for line in lines)

class TextWrapper:
    """Object for wrapping/filling text. The public interface consists of the wrap() and fill() methods."""
'''
QUESTIONS = (
    ("What does textwrap.dedent do?", "Remove any common leading whitespace from every line in `text`.",
     "Return a string with the line of the text.", "Remove the leading whitespace from a string of lines.", 41.0),
    ("What are the parameters of shutil.copyfileobj?", "fsrc, fdst and length.",
     "The file and the file name of the path.", "fsrc, fdst, length.", 62.5),
    ("Which function returns the greatest common divisor of integers?", "math.gcd",
     "The number of the value.", "math.comb", 22.1),
    ("Write the signature of json.dumps.", "def dumps(obj, *, skipkeys=False, ensure_ascii=True, indent=None)",
     "def dump(self, obj)", "def dumps(obj, *, encoding=None, indent=None)", 48.2),
    ("What does heapq.heapify do?", "Transform list x into a heap, in-place, in linear time.",
     "Return the list of the list.", "Return the smallest item of the heap.", 19.3),
    ("What does socket.socketpair do?", "Create a pair of socket objects from the sockets returned by the platform "
     "socketpair() function.", "Return the socket.", "Create a new socket of the address of the address.", 17.2),
    ("What does os.walk do?", "Directory tree generator. For each directory in the tree yields a 3-tuple.",
     "Return the directory.", "Return a list of the directory names of the given path.", 14.4),
)  # fmt: skip


def make_run(folder: Path, align: tuple[str, ...] = ("finetune", "reward", "align"),
             text: str = TEXT, hostile: str = "") -> dict[str, Artifact]:  # fmt: skip
    """Artifacts by label in pipeline order. `hostile` is inserted wherever untrusted text may occur."""
    strict = hostile.encode("utf-8", "ignore").decode()  # Parquet takes no unpaired surrogates, JSON does
    artifacts = {"ingest": _ingest(folder, text, strict), "curate": _curate(folder, text, strict)}
    artifacts["tokenizer"] = _tokenizer(folder, text)
    artifacts["tokenize"] = _artifact(folder, "tokenize", 5.2, {
        "tokens": 3_214_408, "tokens_dropped": 0, "train_tokens": 3_150_211, "validation_tokens": 64_197,
        "train_documents": 688, "validation_documents": 14,
        "train_rows": 6_181, "validation_rows": 127, "validation_bytes": 228_034, "padding_share": 0.0062,
    }, recipe={"seq_len": 512})  # fmt: skip
    artifacts["pretrain"] = _pretrain(folder, artifacts["tokenizer"].path)
    makers = {"finetune": _sft, "reward": _reward, "align": _ppo}
    for label in align:
        artifacts[label] = makers[label](folder, artifacts["tokenizer"].path, hostile)
    artifacts["evaluate"] = _evaluate(folder, hostile)
    return artifacts


KINDS: dict[str, ArtifactKind] = {
    "ingest": "raw_corpus", "curate": "corpus", "tokenizer": "tokenizer", "tokenize": "token_dataset",
    "pretrain": "policy", "sft": "policy", "reward": "reward_model", "ppo": "policy", "evaluate": "scores",
}  # fmt: skip


def _artifact(folder: Path, stage: str, seconds: float, metrics: dict[str, Any], recipe: dict[str, Any] | None = None,
              log: list[dict[str, Any]] | None = None) -> Artifact:  # fmt: skip
    fingerprint = stage.encode().hex().ljust(64, "0")
    path = folder / f"{stage}-{fingerprint[:12]}"
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "manifest.json", {
        "stage": stage, "kind": KINDS[stage], "fingerprint": fingerprint, "version": 1,
        "recipe": recipe or {}, "inputs": {},
        "runtime": RUNTIME,
        "metrics": metrics, "files": {}, "environment": ENVIRONMENT, "started": "2026-03-01T09:30:00+00:00",
        "seconds": seconds,
    })  # fmt: skip
    if log:
        write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    return Artifact(path, fingerprint, stage, KINDS[stage])


def _ingest(folder: Path, text: str, hostile: str) -> Artifact:
    artifact = _artifact(folder, "ingest", 3.1, {
        "files_read": 630, "documents": 741, "bytes_read": 12_911_204,
        "files_rejected": {"binary": 1, "empty": 2}})  # fmt: skip
    lines = [
        {"source": "stdlib", "path": f"module{n}.py", "bytes": 20000, "documents": 1} for n in range(628)
    ]
    lines += [
        {
            "source": "stdlib",
            "path": "lib2to3/grammar.pickle",
            "bytes": 9,
            "documents": 0,
            "rejected": "binary",
        }
    ]
    lines += [{"source": "stdlib", "path": f"e{n}/__init__.py", "bytes": 0, "documents": 0, "rejected": "empty"}
              for n in range(2)]  # fmt: skip
    write_text(artifact.path / "sources.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    with RejectsLogWriter(artifact.path / "rejects" / "0.parquet") as rejects:
        rejects.write([
            RejectsLogEntry("a1", "stdlib", "lib2to3/grammar.pickle", "ingest", "rejected", "binary", 12, 0),
            RejectsLogEntry("a2", "stdlib", f"concurrent/__init__.py{hostile}", "ingest", "rejected", "empty",
                        detail=hostile),
        ])  # fmt: skip
    return artifact


def _curate(folder: Path, text: str, hostile: str) -> Artifact:
    artifact = _artifact(folder, "curate", 4.4, {
        "documents_read": 741, "documents_kept": 702, "documents_dropped": 39, "bytes_read": 12_911_204,
        "bytes_kept": 12_201_332, "reasons": {"too_few_words": 21, "exact_duplicate": 12, "repeated_lines": 6},
        "sources": {"stdlib": {"documents_read": 663, "documents_kept": 629, "bytes_read": 12_500_000,
                               "bytes_kept": 11_821_332},
                    "files": {"documents_read": 78, "documents_kept": 73, "bytes_read": 411_204,
                              "bytes_kept": 380_000}},
        "steps": {"length": {"documents": 741, "dropped": 21}, "gopher_repetition": {"documents": 720, "dropped": 6},
                  "privacy": {"documents": 714, "changed": 9}, "dedup": {"documents": 714, "dropped": 12}},
        "languages": {"": {"documents": 629, "bytes": 11_821_332}, "en": {"documents": 73, "bytes": 380_000}},
    })  # fmt: skip
    with DocumentWriter(artifact.path / "documents" / "0.parquet") as documents:
        documents.write([Document("00a", text + hostile, "stdlib", "textwrap.py", licence="PSF-2.0"),
                         Document("00b", text * 40, "files", "notes/deep/path/of/a/file.md" + hostile)])  # fmt: skip
    with RejectsLogWriter(artifact.path / "rejects" / "0.parquet") as rejects:
        rejects.write([
            RejectsLogEntry("b1", "stdlib", "xml/__init__.py", "length", "dropped", "too_few_words", 3, 5),
            RejectsLogEntry("b2", "stdlib", "encodings/cp037.py", "gopher_repetition", "dropped", "repeated_lines",
                        0.9, 0.3),
            RejectsLogEntry("b3", "stdlib", "ctypes/macholib/framework.py", "dedup", "dropped", "exact_duplicate",
                        detail="same text as ctypes/macholib/dylib.py"),
        ])  # fmt: skip
    return artifact


def _tokenizer(folder: Path, text: str) -> Artifact:
    artifact = _artifact(folder, "tokenizer", 6.7, {
        "vocab_size": 4096, "bytes_per_token": 3.55, "gpt2_bytes_per_token": 2.61})  # fmt: skip
    Tokenizer.from_merges(train(iter([text]), 600)).save(artifact.path)
    return artifact


def _with_tokenizer(artifact: Artifact, tokenizer: Path) -> Artifact:
    for path in tokenizer.glob("tokenizer*.json"):
        (artifact.path / path.name).write_bytes(path.read_bytes())
    return artifact


def _wave(step: int, size: float = 1.0) -> float:
    return size * (math.sin(step * 12.9898) * 43758.5453 % 1 - 0.5)


def _pretrain(folder: Path, tokenizer: Path) -> Artifact:
    log: list[dict[str, Any]] = []
    for step in range(1, 801):
        line = {"step": step, "loss": 2.1 + 6.2 * math.exp(-step / 70) + _wave(step, 0.35),
                "lr_factor": min(step / 40, 1) * (1 - step / 820),
                "grad_norm": 0.4 + 2 * math.exp(-step / 60)}  # fmt: skip
        if step % 100 == 0:
            log.append({"step": step, "val_bpb": 0.92 + 1.6 * math.exp(-step / 180)})
        log.append(line)
    artifact = _artifact(folder, "pretrain", 432.0, {
        "parameters": PARAMETERS, "tokens": 6_553_600, "seconds": 418.2, "tokens_per_second": 15_671,
        "flops_utilization": 0.612, "matmul_tflops": 0.395, "val_bpb": 0.9412, "steps": 800, "skipped_steps": 0,
        "epochs": 0.42, "unread_share": 0.58, "ended_by": "max_epochs",
        "precision": "bf16", "compiled": True, "decoder": CONFIG.to_json()}, log=log)  # fmt: skip
    return _with_tokenizer(artifact, tokenizer)


def _sft(folder: Path, tokenizer: Path, hostile: str) -> Artifact:
    log: list[dict[str, Any]] = [
        {"step": step, "loss": 1.9 + 2.0 * math.exp(-step / 40) + _wave(step, 0.5)} for step in range(1, 181)
    ]
    artifact = _artifact(folder, "sft", 61.0, {
        "val_loss_before": 4.02, "val_loss": 2.06, "conversations": 3_912, "held_out_conversations": 410,
        "steps": 180, "epochs": 0.65, "unread_share": 0.35, "ended_by": "max_tokens"}, log=log)  # fmt: skip
    write_json(artifact.path / "examples.json", [
        [[f"<|begin_of_text|><|user|>{question}{hostile}<|end_of_turn|><|assistant|>", False],
         [f"{truth}<|end_of_turn|>", True]]
        for question, truth, *_ in QUESTIONS])  # fmt: skip
    return _with_tokenizer(artifact, tokenizer)


def _reward(folder: Path, tokenizer: Path, hostile: str) -> Artifact:
    log = [{"step": step, "loss": 0.25 + 0.45 * math.exp(-step / 30) + _wave(step, 0.1),
            "accuracy": 0.9 - 0.4 * math.exp(-step / 30) + _wave(step, 0.1)} for step in range(1, 121)]  # fmt: skip
    return _artifact(folder, "reward", 44.0, {
        "accuracy": 0.874, "pairs": 2_320, "held_out_pairs": 384,
        "accuracy_by_kind": {"other": 0.93, "truncated": 0.81, "garbled": 0.97, "sampled": 0.78}},
        log=log)  # fmt: skip


def _ppo(folder: Path, tokenizer: Path, hostile: str) -> Artifact:
    log = [{"step": step, "reward": 0.4 + step / 60 + _wave(step, 0.6), "kl": step / 400 + abs(_wave(step, 0.03)),
            "response_tokens": 38 + step / 9 + _wave(step, 9), "ended": 1 - 0.3 * math.exp(-step / 15)}
           for step in range(1, 61)]  # fmt: skip
    artifact = _artifact(folder, "ppo", 96.0, {
        "reward_before": 0.41, "reward_after": 1.12, "reward_gain_interval": [0.52, 0.91], "kl": 0.162,
        "chrf_before": 27.4, "chrf_after": 28.1, "chrf_interval": [-0.6, 2.1], "response_length_before": 38.2,
        "response_length_after": 44.9, "ended_before": 0.94, "ended_after": 0.99,
        "stopped_early": False}, log=log)  # fmt: skip
    write_json(artifact.path / "samples.json", [
        {"question": question + hostile, "reference": truth, "before": before, "after": after + hostile,
         "reward_before": 0.2, "reward_after": 1.3}
        for question, truth, before, after, _ in QUESTIONS])  # fmt: skip
    return _with_tokenizer(artifact, tokenizer)


def _score(model: float, rules: dict[str, float], difference: float) -> dict[str, Any]:
    return {
        "model": model, "interval": [model - 1, model + 1], "rules": rules,
        "best_rule": max(rules, key=lambda rule: rules[rule]), "difference": difference,
        "difference_interval": [difference - 1, difference + 1],
        "verdict": "above" if difference > 1 else "below" if difference < -1 else "same",
    }  # fmt: skip


def _evaluate(folder: Path, hostile: str) -> Artifact:
    artifact = _artifact(folder, "evaluate", 38.0, {
        "base_bpb": 0.9412, "base_bpb_interval": [0.921, 0.963], "chat_bpb": 1.0031, "chat_chrf": 28.1,
        "held_out": {
            "questions": 200, "documents": 22,
            "scores": {
                "chrf": _score(28.1, {"question": 12.0, "other": 24.2, "nearest" + hostile: 31.5}, -3.4),
                "exact": _score(0.03, {"question": 0.0, "other": 0.0, "nearest" + hostile: 0.01}, 0.02),
            },
            "chrf_by_kind": {
                "does" + hostile: {"questions": 99, "model": 24.8, "best_rule": "other", "rule": 30.1},
                "which": {"questions": 101, "model": 12.2, "best_rule": "nearest", "rule": 38.1},
            },
        },
        "taught": {
            "questions": 200, "documents": 150,
            "scores": {"chrf": _score(58.1, {"question": 12.0, "nearest": 38.0}, 20.1)},
            "chrf_by_kind": {},
        }})  # fmt: skip
    write_json(artifact.path / "samples.json", [
        {"question": question + hostile, "reference": truth, "chat": after + hostile, "chrf": score, "kind": "does",
         "held_out": index < 6}
        for index, (question, truth, _, after, score) in enumerate(QUESTIONS)])  # fmt: skip
    write_json(
        artifact.path / "continuations.json",
        [
            {
                "beginning": "def get(self, name" + hostile,
                "continuation": ", default=None):\n    return self" + hostile,
            }
        ],
    )
    return artifact
