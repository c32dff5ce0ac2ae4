"""llama.cpp, run in this process, computes what our decoder computes from the GGUF files we write."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from decoders import PORTABLE, SCALINGS, decoder
from test_vocabulary import chat_tokenizer

from groundup.cli import main
from groundup.core.errors import GroundupError
from groundup.export.gguf import GgufDtype, export_gguf
from groundup.export.hf_import import import_huggingface
from groundup.export.huggingface import export_huggingface
from groundup.export.verify import Verification
from groundup.export.verify_llama_cpp import verify_llama_cpp
from groundup.export.verify_transformers import verify_transformers
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig, RopeScaling
from groundup.tokens.tokenizer import Tokenizer
from tiny import groundup

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

YARN = RopeScaling(kind="yarn", factor=4, original_max_seq_len=16)
PUBLISHED_YARN = RopeScaling(kind="yarn", factor=4, original_max_seq_len=16, attention_factor=1.4)
REFUSED = {
    "llama_longrope": "rope_scaling.kind = .longrope",
    "llama_yarn": "rope_scaling.beta_fast",
    "phi3_longrope": "rope_scaling.kind = .longrope",
    "smollm3_pattern": "rope_layers other than",
    "mistral_windows": "sliding windows",
    "qwen3_windows": "sliding windows",
    "qwen3_moe_raw": "normalize = false",
}
CARRIED = {name: config for name, config in PORTABLE.items() if name not in REFUSED} | {
    "qwen3_yarn": replace(PORTABLE["qwen3"], rope_scaling=YARN),
    "llama_yarn_factor": replace(PORTABLE["llama_gqa"], rope_scaling=PUBLISHED_YARN),
    "qwen3_moe_linear": replace(PORTABLE["qwen3_moe"], rope_scaling=SCALINGS["linear"]),
    "olmo3_pattern": replace(PORTABLE["olmo3"], windows=(0, 9, 9, 0)),
}


def checkpoint(folder: Path, config: DecoderConfig, tokenizer: Tokenizer, chat: bool = True) -> Path:
    """A decoder over the tokenizer's ids; its rows are whole q8_0 blocks."""
    config = replace(
        config, vocab_size=tokenizer.vocab_size, d_model=64, d_ff=96, max_seq_len=96, head_dim=16
    )
    if config.moe is not None:
        config = replace(config, moe=replace(config.moe, d_expert=32))
    save_model(folder, decoder(config), tokenizer, chat=chat)
    return folder


def exported(folder: Path, target: Path, dtype: GgufDtype = "fp32") -> Verification:
    results: list[Verification] = []
    export_gguf(
        folder, target, dtype, lambda source, path: results.append(verify_llama_cpp(source, path, dtype))
    )
    return results[0]


@pytest.mark.parametrize(
    ("name", "chat"), [*((name, True) for name in CARRIED), *((name, False) for name in ("qwen3", "gpt2"))]
)
def test_llama_cpp_computes_every_portable_architecture(
    name: str, chat: bool, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    result = exported(checkpoint(tmp_path / "ours", CARRIED[name], tokenizer, chat), tmp_path / "model.gguf")
    # llama.cpp looks GELU up in a table of half precision.
    assert result.difference < (1e-2 if name.startswith("gpt2") else 1e-4)
    assert (result.strings, result.questions) == (300, 20)
    assert result.other_ids == [] and result.other_texts == []


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "q8_0"])
def test_smaller_types_are_smaller_and_close(dtype: GgufDtype, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours", PORTABLE["qwen3"], tokenizer)
    export_gguf(folder, tmp_path / "fp32.gguf")
    result = exported(folder, tmp_path / "small.gguf", dtype)
    assert 0 < result.difference < {"fp16": 0.05, "bf16": 0.3, "q8_0": 1.0}[dtype]
    kinds = {str(tensor.tensor_type.name) for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors}
    assert kinds == {"F32", {"fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}[dtype]}
    assert (tmp_path / "small.gguf").stat().st_size < (tmp_path / "fp32.gguf").stat().st_size


def test_rows_that_are_no_whole_q8_0_blocks_are_fp16(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = replace(PORTABLE["qwen3"], vocab_size=tokenizer.vocab_size, d_ff=80)
    save_model(tmp_path / "ours", decoder(config), tokenizer)
    assert exported(tmp_path / "ours", tmp_path / "model.gguf", "q8_0").difference < 1.0
    types = {
        tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert types["blk.0.ffn_down.weight"] == "F16" and types["token_embd.weight"] == "F16"


@pytest.mark.parametrize("name", REFUSED)
def test_a_variant_that_llama_cpp_does_not_compute_is_refused_by_name(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "ours", decoder(PORTABLE[name]), tokenizer)
    with pytest.raises(
        GroundupError, match=f"llama.cpp does not support {REFUSED[name]}.*--format huggingface"
    ):
        export_gguf(tmp_path / "ours", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_chat_model_answers_and_ends_alike_in_llama_cpp(
    chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.gguf"
    groundup("export", str(chat_checkpoint), str(target), "--format", "gguf", "--verify")
    output = capsys.readouterr()
    assert output.out.split() == [str(target)]
    assert "300 of 300 strings with the same ids, 20 of 20 greedy texts equal, 20 ended" in output.err
    fields = gguf.GGUFReader(target).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    stops = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot")]
    assert [tokens[number] for number in stops] == ["<|end_of_turn|>"] * 2
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_base_model_has_no_chat_template_and_ends_at_the_end_of_a_document(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "ours", PORTABLE["llama"], tokenizer, chat=False)
    export_gguf(folder, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert "tokenizer.chat_template" not in fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True


def test_an_imported_chat_model_keeps_its_own_template_and_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    theirs = chat_tokenizer(folder / "tokenizer.json")
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
        "+ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    save_model(folder, decoder(replace(PORTABLE["llama_gqa"], vocab_size=theirs.get_vocab_size() + 5)))
    config_json = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config_json | {"eos_token_id": 2, "bos_token_id": 1}))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "chat_template.jinja").write_text(template)
    import_huggingface(folder, tmp_path / "ours")
    result = exported(tmp_path / "ours", tmp_path / "model.gguf")
    assert result.difference < 1e-4 and result.other_ids == []
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.chat_template"].contents() == template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 2
    export_huggingface(
        tmp_path / "ours", tmp_path / "out", verify=lambda *given: verify_transformers(*given) and None
    )
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template


def test_a_vocabulary_with_unreachable_words_gets_the_split_that_follows_the_merges(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("b", "c"), ("ab", "c"), ("x", "bc"), ("a", "bc")]
    tokenizer = Tokenizer.from_merges(_table_with(pairs))
    # "abc" is reached by (ab, c); "abbc" is never one token.
    save_model(
        tmp_path / "ours", decoder(replace(PORTABLE["qwen3"], vocab_size=tokenizer.vocab_size)), tokenizer
    )
    result = exported(tmp_path / "ours", tmp_path / "model.gguf")
    assert result.other_ids == []
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "dbrx"


def _table_with(pairs: list[tuple[str, str]]) -> dict[str, object]:
    """A table whose last word, `xab`, its own merges never give: (a, b) comes first."""
    from groundup.tokens.bpe import train

    table = train(iter([""]), 256)
    vocabulary = table["model"]["vocab"]
    for pair in [*pairs, ("xa", "b")]:
        for token in (*pair, "".join(pair)):
            vocabulary.setdefault(token, len(vocabulary))
    table["model"]["merges"] = [list(pair) for pair in [("a", "b"), *pairs[1:], ("x", "a"), ("xa", "b")]]
    return table


def test_a_model_that_llama_cpp_computes_otherwise_is_not_written(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.export.gguf._interleaved", lambda tensor, head_dim: tensor)
    folder = checkpoint(tmp_path / "ours", PORTABLE["llama_gqa"], tokenizer)
    with pytest.raises(
        GroundupError, match=r"not the same in llama\.cpp, and was not written: log-probabilities"
    ):
        exported(folder, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_a_taken_name_another_suffix_and_a_missing_package_are_refused(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(tmp_path / "ours", PORTABLE["qwen3"], tokenizer)
    (tmp_path / "taken.gguf").write_text("mine")

    def refusal(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["export", str(folder), *arguments])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "taken.gguf already exists" in refusal(str(tmp_path / "taken.gguf"), "--format", "gguf")
    assert (tmp_path / "taken.gguf").read_text() == "mine"
    assert "Try" in refusal(str(tmp_path / "model"), "--format", "gguf")
    assert "--dtype q8_0 needs --format gguf" in refusal(str(tmp_path / "model"), "--dtype", "q8_0")
    for package, hint in (("gguf", r"groundup[gguf]"), ("xllamacpp", "pip install xllamacpp")):
        with monkeypatch.context() as without:
            without.setitem(__import__("sys").modules, package, None)
            assert hint in refusal(str(tmp_path / "model.gguf"), "--format", "gguf", "--verify")
    assert not (tmp_path / "model.gguf").exists()
