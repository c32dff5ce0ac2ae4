"""chrF: how many character n-grams an answer shares with the true one.

in:  an answer and the truth
out: 0 (nothing) to 100 (the same but for white space)

Popović 2015 (https://aclanthology.org/W15-3049), n = 1..6, recall counted twice (beta = 2), as sacrebleu computes it
for one sentence: orders for which either text is too short are left out of the averages.
"""

from collections import Counter

ORDER = 6
BETA = 2


def chrf(answer: str, truth: str) -> float:
    """The score of one answer."""
    said, true = "".join(answer.split()), "".join(truth.split())
    precisions, recalls = [], []
    for n in range(1, ORDER + 1):
        ours, theirs = _ngrams(said, n), _ngrams(true, n)
        if ours and theirs:
            shared = (ours & theirs).total()
            precisions.append(shared / ours.total())
            recalls.append(shared / theirs.total())
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))
