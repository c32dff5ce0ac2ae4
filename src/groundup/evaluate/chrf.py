"""chrF: F-score of the character n-grams of an answer against those of the reference.

in:  an answer and its reference
out: 0 (no common n-gram) to 100 (equal apart from white space)

Popović 2015 (https://aclanthology.org/W15-3049), n = 1..6, recall counted twice (beta = 2), as sacrebleu computes it
for one sentence: the averages omit orders for which either text is too short.
"""

from collections import Counter

ORDER = 6
BETA = 2


def chrf(answer: str, reference: str) -> float:
    """The score of one answer."""
    answer, reference = "".join(answer.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in range(1, ORDER + 1):
        answer_ngrams, reference_ngrams = _ngrams(answer, n), _ngrams(reference, n)
        if answer_ngrams and reference_ngrams:
            shared = (answer_ngrams & reference_ngrams).total()
            precisions.append(shared / answer_ngrams.total())
            recalls.append(shared / reference_ngrams.total())
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))
