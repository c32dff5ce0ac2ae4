"""Check of the privacy step: its recall on synthetic PII.

in:  a check context
out: per kind of PII, the share of planted values that the step left in the texts
"""

from collections.abc import Iterator

from groundup.doctor.check import Check, CheckContext, Difference
from groundup.doctor.synthetic_pii import plant, recall
from groundup.text.curate.steps.privacy import Privacy

PER_KIND = 40
MAX_MISSED = 0.05
TEXTS = (
    "The keeper of the lighthouse wrote a letter every week, and the boat took it on Fridays. " * 8,
    "| item | price |\n|---|---|\n| rope | 12 |\n| lamp oil | 30 |\n" * 8,
)


def _check_recall(context: CheckContext) -> Iterator[Difference]:
    """Default settings, every kind."""
    step = Privacy()
    recalls = recall(step, plant(TEXTS, seed=0, per_kind=PER_KIND, regions=step.regions))
    for kind, share in recalls.items():
        yield Difference(f"{kind}: planted values left in the text", 1 - share, MAX_MISSED)


CHECKS = [
    Check(
        "privacy: recall",
        "private data stays in the corpus",
        _check_recall,
        "Don't publish a corpus or a model made here. Reinstall phonenumbers and python-stdnum; if it still fails, "
        "report `groundup doctor --json`",
    )
]
