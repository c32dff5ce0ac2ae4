"""The rules that derive findings from metrics."""

from typing import Any

from groundup.book.align_chapters import confirmation
from groundup.book.findings import Evidence, evidence_of, findings


def answers(evidence: Evidence) -> dict[str, str]:
    return {finding.text: finding.answer for finding in findings(evidence)}


def test_without_figures_only_the_general_limits_are_stated() -> None:
    (limits,) = findings(Evidence())
    assert limits.answer == "no"
    assert "nothing beyond its corpus" in limits.text


def scores(model: float, difference: tuple[float, float], name: str = "chrf") -> dict[str, dict[str, Any]]:
    low, high = difference
    relation = "above" if low > 0 else "below" if high < 0 else "same"
    return {name: {"model": model, "interval": [model - 4, model + 4], "rules": {"nearest": 37.0, "other": 20.0},
                   "best_rule": "nearest", "difference_interval": [low, high], "verdict": relation}}  # fmt: skip


def test_a_low_chrf_means_the_facts_are_not_to_be_relied_on() -> None:
    text = "It does not know the facts: do not rely on what it says."
    assert answers(Evidence(held_out=scores(24.0, (1.0, 3.0))))[text] == "no"
    better = answers(Evidence(held_out=scores(90.0, (30.0, 40.0))))
    assert better["It reproduces its subject closely."] == "yes"


def test_what_the_best_rule_gets_is_no_knowledge() -> None:
    text = "It knows the form of an answer, not the facts: do not rely on what it says."
    for difference in ((-1.0, 7.0), (-9.0, -2.0)):
        (finding, _) = findings(Evidence(held_out=scores(90.0, difference)))
        assert (finding.text, finding.answer) == (text, "no")
        assert "nearest taught answer, renamed (37.0)" in finding.basis
    assert text not in answers(Evidence(held_out=scores(40.0, (0.5, 5.0))))


def test_names_that_a_rule_repeats_are_not_praised() -> None:
    assert "yes" not in answers(Evidence(held_out=scores(0.8, (-0.1, 0.1), "names"))).values()
    assert "yes" in answers(Evidence(held_out=scores(0.8, (0.1, 0.2), "names"))).values()


def test_an_insignificant_gain_is_not_called_a_gain() -> None:
    by_text = answers(Evidence(reward_gain=(-0.1, 0.3)))
    assert by_text["PPO did not change the reward significantly."] == "unknown"


def test_a_rising_reward_with_a_falling_chrf_is_called_exploitation() -> None:
    by_text = answers(Evidence(reward_gain=(0.4, 0.8), chrf_change=(-4.0, -1.0)))
    assert by_text["It exploits its reward model: chrF, which the reward model never saw, fell."] == "no"


def test_the_weakest_kind_of_pair_is_named() -> None:
    (accuracy, _) = findings(
        Evidence(reward_accuracy=0.9, accuracy_by_kind={"other": 0.99, "truncated": 0.71})
    )
    assert accuracy.answer == "yes"
    assert accuracy.basis.endswith("Weakest: truncated, 71 %.")


def test_the_loss_in_plain_text_is_reported() -> None:
    assert "yes" in answers(Evidence(base_bpb=1.0, chat_bpb=1.02)).values()
    cost = "Alignment made it much worse at plain text."
    assert answers(Evidence(base_bpb=1.0, chat_bpb=1.4))[cost] == "no"


def test_evidence_is_collected_from_the_stages_metrics() -> None:
    evidence = evidence_of({
        "pretrain": {"val_bpb": 1.1}, "policy": {"reward_gain_interval": [0.1, 0.2], "chrf_interval": None},
        "tokenizer": {"bytes_per_token": 3.5}, "architecture": {"context": 512},
    })  # fmt: skip
    assert evidence.base_bpb == 1.1
    assert evidence.reward_gain == (0.1, 0.2)
    assert evidence.chrf_change is None
    assert any("about 1,800 characters" in finding.basis for finding in findings(evidence))


def test_chrf_confirms_refutes_or_leaves_the_gain_open() -> None:
    gain = {"reward_gain_interval": [0.2, 0.4]}
    assert "the gain is real" in confirmation(gain | {"chrf_interval": [0.1, 2.0]})
    assert "the policy exploits the reward model" in confirmation(gain | {"chrf_interval": [-2.0, -0.1]})
    assert "neither confirms" in confirmation(gain | {"chrf_interval": [-1.0, 1.0]})
    assert "no gain to confirm" in confirmation(
        {"reward_gain_interval": [-0.2, 0.4], "chrf_interval": [0, 1]}
    )
    assert "can't be confirmed" in confirmation({})
