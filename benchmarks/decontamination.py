"""Share of evaluation items that a document with only a part of them gives away. Prints Markdown.

in:  evaluation sets (JSON lines, also compressed)
out: per set: items, those too short to be searched for, and the recall at several shares of an item's longest text (the
     question, usually), for several lengths of n-grams

    python benchmarks/decontamination.py DATA/eval/gsm8k_test.jsonl DATA/eval/code/HumanEval.jsonl --ngrams 13 8
"""

import argparse
import tempfile
from pathlib import Path

from groundup.text.curate.decontaminate import OVERLAPS, Decontaminate, write_index
from groundup.text.curate.eval_texts import evaluation_items


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--ngrams", type=int, nargs="+", default=[13, 8])
    arguments = parser.parse_args()
    print("| set | n-gram | items | too short | " + " | ".join(f"{share} %" for share in OVERLAPS) + " |")
    print("|---|" + "---|" * (3 + len(OVERLAPS)))
    for path in arguments.sets:
        for ngram in arguments.ngrams:
            recipe = Decontaminate(paths=(str(path),), ngram=ngram)
            with tempfile.TemporaryDirectory() as folder:
                counts = write_index(recipe, evaluation_items(recipe.paths), Path(folder))
            found = [counts[f"items_found_at_{share}_percent"] / counts["items"] for share in OVERLAPS]
            recall = " | ".join(f"{share:.2f}" for share in found)
            print(f"| {path.name} | {ngram} | {counts['items']} | {counts['items_too_short']} | {recall} |")


if __name__ == "__main__":
    main()
