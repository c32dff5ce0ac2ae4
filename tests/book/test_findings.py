"""The rules that say what a model can and cannot do."""

from groundup.book.align_chapters import confirmation
from groundup.book.findings import Evidence, evidence_of, verdicts


def answers(evidence: Evidence) -> dict[str, str]:
    return {verdict.text: verdict.answer for verdict in verdicts(evidence)}


def test_without_figures_only_the_general_limits_are_stated() -> None:
    found = verdicts(Evidence())
    assert [verdict.answer for verdict in found] == ["no"]
    assert "nothing beyond its corpus" in found[0].text


def test_a_low_chrf_means_the_facts_are_not_to_be_relied_on() -> None:
    assert (
        answers(Evidence(chat_chrf=24.0))["It does not know the facts: do not rely on what it says."] == "no"
    )
    assert answers(Evidence(chat_chrf=70.0))["It reproduces its subject closely."] == "yes"


def test_answers_no_better_than_their_form_alone_are_no_knowledge() -> None:
    text = "It knows the form of an answer, not the facts: do not rely on what it says."
    assert answers(Evidence(chat_chrf=40.0, chat_chrf_interval=(36.0, 44.0), form_chrf=37.0))[text] == "no"
    assert text not in answers(Evidence(chat_chrf=40.0, chat_chrf_interval=(38.0, 42.0), form_chrf=37.0))


def test_a_gain_that_may_be_chance_is_not_called_a_gain() -> None:
    found = answers(Evidence(reward_gain=(-0.1, 0.3)))
    assert found["Reinforcement changed nothing that can be told from chance."] == "unknown"


def test_a_reward_that_rises_while_the_unseen_measure_falls_is_called_hacking() -> None:
    found = answers(Evidence(reward_gain=(0.4, 0.8), chrf_change=(-4.0, -1.0)))
    assert found["It pleases its judge rather than the truth: a measure the judge never saw fell."] == "no"


def test_the_weakest_kind_of_pair_is_named() -> None:
    (judge, _) = verdicts(Evidence(reward_accuracy=0.9, accuracy_by_kind={"other": 0.99, "cut_short": 0.71}))
    assert judge.answer == "yes"
    assert judge.because.endswith("Weakest: cut short, 71 %.")


def test_what_answering_cost_in_plain_text_is_said() -> None:
    assert "yes" in answers(Evidence(base_bpb=1.0, chat_bpb=1.02)).values()
    cost = "Learning to answer cost it much of what it knew of plain text."
    assert answers(Evidence(base_bpb=1.0, chat_bpb=1.4))[cost] == "no"


def test_evidence_is_collected_from_the_stages_metrics() -> None:
    evidence = evidence_of({
        "pretrain": {"val_bpb": 1.1}, "ppo": {"reward_gain_interval": [0.1, 0.2], "chrf_interval": None},
        "tokenizer": {"bytes_per_token": 3.5}, "architecture": {"context": 512},
    })  # fmt: skip
    assert evidence.base_bpb == 1.1
    assert evidence.reward_gain == (0.1, 0.2)
    assert evidence.chrf_change is None
    assert any("about 1,800 characters" in verdict.because for verdict in verdicts(evidence))


def test_the_unseen_measure_confirms_denies_or_leaves_open() -> None:
    gain = {"reward_gain_interval": [0.2, 0.4]}
    assert "the gain is real" in confirmation(gain | {"chrf_interval": [0.1, 2.0]})
    assert "learnt to please its judge" in confirmation(gain | {"chrf_interval": [-2.0, -0.1]})
    assert "neither confirms" in confirmation(gain | {"chrf_interval": [-1.0, 1.0]})
    assert "no gain to confirm" in confirmation(
        {"reward_gain_interval": [-0.2, 0.4], "chrf_interval": [0, 1]}
    )
    assert "can't be said" in confirmation({})
