"""Language identification on FLORES-200 sentences: accuracy and F1 per language, speed. Prints Markdown.

in:  JSON lines with `lang` (as `deu_Latn`) and `text`, several consecutive sentences of each language
out: the tables of docs/reference/languages.md

    python benchmarks/language.py flores200_dev_sentences.jsonl.gz
"""

import argparse
import gzip
import json
import platform
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.language import LANGUAGES, UNDETERMINED, Language
from groundup.text.documents import DOCUMENT_SCHEMA

PARAGRAPH = 5
"""Sentences that make a paragraph."""
# FLORES names languages by ISO 639-3; the model by ISO 639-1, or by macrolanguage.
_ISO = (
    "afr=af als=sq amh=am arb=ar arz=arz azj=az ben=bn bos=bs bul=bg cat=ca ces=cs cym=cy dan=da deu=de ell=el eng=en "
    "est=et eus=eu fin=fi fra=fr gle=ga glg=gl guj=gu hau=ha heb=he hin=hi hrv=hr hun=hu hye=hy ind=id isl=is ita=it "
    "jpn=ja kan=kn kat=ka kaz=kk khm=km kor=ko lao=lo lit=lt lvs=lv mal=ml mar=mr mkd=mk mya=my nld=nl nob=no npi=ne "
    "pan=pa pes=fa pol=pl por=pt ron=ro rus=ru sin=si slk=sk slv=sl som=so spa=es srp=sr swe=sv swh=sw tam=ta tel=te "
    "tgl=tl tha=th tur=tr ukr=uk urd=ur uzn=uz vie=vi yor=yo zho=zh zsm=ms zul=zu"
)
ISO = dict(pair.split("=") for pair in _ISO.split())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sentences", type=Path)
    rows = read(parser.parse_args().sentences)
    gold, said = judge(rows)
    paragraphs = {name: [" ".join(texts[n : n + PARAGRAPH]) for n in range(0, len(texts), PARAGRAPH)]
                  for name, texts in rows.items()}  # fmt: skip
    _, long_said = judge(paragraphs)
    print_summary(rows, paragraphs)
    print_table(gold, said, long_said)
    print_speed([text for texts in paragraphs.values() for text in texts])


def read(path: Path) -> dict[str, list[str]]:
    """Sentences by language, as FLORES names it."""
    found: dict[str, list[str]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found[row["lang"]].append(row["text"])
    return dict(sorted(found.items()))


def batch(texts: list[str]) -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(pa.Table.from_pylist([blank | {"text": text} for text in texts], DOCUMENT_SCHEMA))


Answers = dict[str, list[str]]


def judge(rows: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, Answers]]:
    """Per language its code in the model, and what was said of each text: `best` and, with the bound, `sure`."""
    gold = {name: ISO[name[:3]] for name in rows}
    said = {name: {"best": list(Language(min_confidence=0).apply(batch(texts)).language or ()),
                   "sure": list(Language().apply(batch(texts)).language or ())}
            for name, texts in rows.items()}  # fmt: skip
    return gold, said


def accuracy(said: dict[str, Answers], gold: dict[str, str], name: str) -> float:
    return float(np.mean([answer == gold[name] for answer in said[name]["best"]]))


def f1(said: dict[str, Answers], gold: dict[str, str]) -> dict[str, float]:
    """Per code in the model, over all texts."""
    hits, answered, asked = Counter[str](), Counter[str](), Counter[str]()
    for name, answers in said.items():
        for answer in answers["best"]:
            answered[answer] += 1
            asked[gold[name]] += 1
            hits[answer] += answer == gold[name]
    return {code: 2 * hits[code] / (answered[code] + asked[code]) for code in asked}


def print_summary(rows: dict[str, list[str]], paragraphs: dict[str, list[str]]) -> None:
    """The languages that the model knows, by how much text there is and how it is written."""
    known = {name: texts for name, texts in rows.items() if ISO[name[:3]] in LANGUAGES}
    forms = {f"its first {chars} characters": {name: [text[:chars] for text in texts] for name, texts in known.items()}
             for chars in (20, 40)}  # fmt: skip
    forms |= {"a sentence": known, "a sentence in capitals": {name: [text.upper() for text in texts]
                                                              for name, texts in known.items()},
              f"{PARAGRAPH} sentences": {name: paragraphs[name] for name in known}}  # fmt: skip
    head = ("macro accuracy", "macro F1", "confidence >= 0.65", "of these, right")
    print(f"| {len(known)} languages that the model knows | {' | '.join(head)} |")
    print("|---|---:|---:|---:|---:|")
    for title, texts in forms.items():
        gold, said = judge(texts)
        macro, scores = np.mean([accuracy(said, gold, name) for name in said]), list(f1(said, gold).values())
        sure, right = sure_figures(said, gold, list(said))
        print(f"| {title} | {macro:.3f} | {np.mean(scores):.3f} | {sure:.3f} | {right:.3f} |")


def sure_figures(said: dict[str, Answers], gold: dict[str, str], names: list[str]) -> tuple[float, float]:
    """The share of texts whose language counts as known, and how many of those are right."""
    pairs = [(answer, gold[name]) for name in names for answer in said[name]["sure"]]
    sure = [answer == truth for answer, truth in pairs if answer != UNDETERMINED]
    return len(sure) / len(pairs), float(np.mean(sure))


def print_table(gold: dict[str, str], said: dict[str, Answers], long_said: dict[str, Answers]) -> None:
    print(f"\n| FLORES | code | sentence | F1 | {PARAGRAPH} sentences | below 0.65 | taken for |")
    print("|---|---|---:|---:|---:|---:|---|")
    scores = f1(said, gold)
    for name, code in gold.items():
        wrong = Counter(answer for answer in said[name]["best"] if answer != code)
        taken = ", ".join(f"{other} {number / len(said[name]['best']):.0%}" for other, number in wrong.most_common(3)
                          if number / len(said[name]["best"]) >= 0.02)  # fmt: skip
        unsure = said[name]["sure"].count(UNDETERMINED) / len(said[name]["sure"])
        shown = code if code in LANGUAGES else f"({code})"
        print(f"| {name} | {shown} | {accuracy(said, gold, name):.3f} | {scores[code]:.3f} | "
              f"{accuracy(long_said, gold, name):.3f} | {unsure:.2f} | {taken} |")  # fmt: skip


def print_speed(texts: list[str]) -> None:
    size = sum(len(text.encode()) for text in texts) / 1e6
    whole, step = batch(texts), Language()
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        step.apply(DocumentBatch(whole.documents))
        seconds.append(time.perf_counter() - begun)
    print(f"\nSpeed, one process ({platform.machine()}): {size / min(seconds):.1f} MB/s, "
          f"{len(texts) / min(seconds):,.0f} documents of {1e3 * size / len(texts):.1f} kB a second.")  # fmt: skip


if __name__ == "__main__":
    main()
