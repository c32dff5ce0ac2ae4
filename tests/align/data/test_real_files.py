"""Published instruction and preference files, each read by a `[[data]]` table of at most five lines."""

from pathlib import Path
from typing import Any

import pytest
from dataset_helpers import read

from groundup.align.data.file_rows import FileDataset
from groundup.core.blueprint import load
from groundup.core.records import Conversation, LabelledResponse, Prompt, Ranking
from groundup.pipeline import Blueprint

TALK, RANK = {"use": "conversations"}, {"use": "preferences"}
VOTES = {"0": "a", "1": "b", "2": "tie"}
FILES: list[tuple[str, dict[str, Any], type, int, dict[str, int]]] = [
    ("sft/alpaca_2k_long.jsonl", TALK, Conversation, 2000, {}),
    ("sft/alpaca_en_demo.jsonl", TALK, Conversation, 919, {}),
    ("sft/code_alpaca_2k.jsonl", TALK, Conversation, 2015, {"empty_answer": 2}),
    ("sft/dolly_6k_nocontext.jsonl.gz", TALK, Conversation, 6300, {}),
    ("sft/glaive_toolcall_300.jsonl", TALK, Conversation, 300, {}),
    ("sft/gsm8k_train.jsonl.gz", TALK, Conversation, 7473, {}),
    ("sft/gsm8k_train.jsonl.gz", {"use": "prompts"}, Prompt, 7473, {}),
    ("sft/identity_templates.jsonl", TALK, Conversation, 91, {}),
    ("sft/llms_from_scratch_1k.jsonl", TALK, Conversation, 1036, {}),
    ("sft/oasst_en_100_best_path.jsonl", TALK, Conversation, 100, {}),
    ("sft/oasst_en_100_trees.jsonl.gz", TALK, Conversation, 100, {"unanswered_left_out": 39}),
    ("sft/reason_tool_use_50.jsonl", TALK, Conversation, 50, {"reasoning_left_out": 112}),
    ("sft/self_instruct_seed_175.jsonl", TALK, Conversation, 175, {}),
    ("sft/sgd_multiturn.jsonl.gz", TALK, Conversation, 840, {}),
    ("sft/user_oriented_252.jsonl", TALK, Conversation, 252, {}),
    ("preference/autoj_pairwise.jsonl.gz", RANK | {"votes": VOTES}, Ranking, 1186, {"equal_responses": 5,
                                                                                    "empty_answer": 1}),
    ("preference/dolly_human_vs_flan_t5_small.jsonl.gz", RANK, Ranking, 6260, {}),
    ("preference/dpo_en_demo_300.jsonl", RANK, Ranking, 300, {}),
    ("preference/hh_harmless_base_test.jsonl.gz", RANK, Ranking, 2055, {"two_assistant_messages": 4,
                                                                        "empty_message": 3}),
    ("preference/kto_en_demo_300.jsonl", RANK, LabelledResponse, 300, {}),
    ("preference/llmbar_mtbench.jsonl", RANK | {"votes": {"1": "a", "2": "b"}}, Ranking, 569, {}),
    ("preference/llms_from_scratch_style_1k.jsonl", RANK, Ranking, 1030, {"equal_responses": 6}),
    ("preference/oasst_ranked_pairs.jsonl.gz", RANK, Ranking, 732, {}),
    ("preference/pandalm_testset.jsonl", RANK | {"votes": {"1": "a", "2": "b", "0": "tie"},
     "fields": {"winner": "annotator1"}}, Ranking, 938, {"empty_answer": 54, "not_text": 6, "no_prompt": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "kind", "records", "reasons"), FILES)
def test_a_published_file_is_read(
    name: str, table: dict[str, Any], kind: type, records: int, reasons: dict[str, int], shared_data: Path
) -> None:
    blueprint = {
        "ingest": {"sources": [{"use": "stdlib"}]},
        "data": [table | {"paths": [str(shared_data / name)]}],
    }
    (dataset,) = load(Blueprint, blueprint, [], "ten lines").data
    assert isinstance(dataset, FileDataset)
    made, entries = read(dataset)
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.reason] = counts.get(entry.reason, 0) + 1
        assert entry.detail.startswith(f"{Path(name).name}, line "), entry
    assert {type(record) for record in made} == {kind}
    assert (len(made), counts) == (records, reasons)
