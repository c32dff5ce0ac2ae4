"""chrF equals sacrebleu's, sentence by sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.evaluate.chrf import chrf

TEXT = st.text(alphabet="abcdeé 漢.", max_size=30)


@given(TEXT, TEXT)
@settings(max_examples=300, deadline=None)
def test_it_equals_sacrebleu(answer: str, truth: str) -> None:
    reference = pytest.importorskip("sacrebleu.metrics").CHRF()
    assert chrf(answer, truth) == pytest.approx(reference.sentence_score(answer, [truth]).score, abs=1e-6)


def test_known_ends_of_the_scale() -> None:
    assert chrf("the same text", "the  same text") == pytest.approx(100)
    assert chrf("", "text") == chrf("text", "") == chrf("abc", "xyz") == 0
