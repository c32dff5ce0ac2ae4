"""What transformers makes of our exports, and we of its folders; every refusal."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
import transformers
from decoders import PORTABLE, QWEN3, QWEN3_MOE, decoder
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from groundup.cli import main
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError, GroundupError
from groundup.core.store import Store
from groundup.export.hf_import import import_huggingface
from groundup.export.huggingface import export_huggingface
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.config import DecoderConfig
from groundup.model.value_head import ValueModel
from groundup.tokens.tokenizer import Tokenizer
from tiny import groundup

IDS = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(1))
TEXTS = [
    "The cat sat on the mat.",
    "  def f(x):\n\treturn x**2  # naïve – 🦊",
    "1234567 \u0000 end",
    "a house",
]


def checkpoint(folder: Path, config: DecoderConfig = QWEN3, tokenizer: Tokenizer | None = None) -> Path:
    save_model(folder, decoder(config), tokenizer)
    return folder


@pytest.mark.parametrize("name", PORTABLE)
def test_what_goes_out_comes_back_unchanged(name: str, tmp_path: Path) -> None:
    ours = decoder(PORTABLE[name])
    save_model(tmp_path / "ours", ours)
    export_huggingface(tmp_path / "ours", tmp_path / "out", max_shard_bytes=40_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), theirs(IDS).logits, atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    import_huggingface(tmp_path / "theirs", tmp_path / "back")
    back = load_decoder(tmp_path / "back")
    assert back.config == ours.config
    for key, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_transformers_speaks_our_tokenizer_and_generates_our_tokens(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64
    )
    export_huggingface(checkpoint(tmp_path / "ours", config, tokenizer), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    stop = {tokenizer.eos, tokenizer.end_of_turn}
    engine = Engine(load_decoder(tmp_path / "ours"), stop, tokenizer.pad, config.max_seq_len)
    lengths = []
    for text in TEXTS:
        prompt = words(text, return_tensors="pt")["input_ids"]
        assert prompt[0].tolist() == [tokenizer.bos, *tokenizer.encode(text)]
        assert words.decode(tokenizer.encode(text)) == text
        expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :].tolist()
        ours = list(engine.stream(prompt[0].tolist(), max_new_tokens=20, temperature=0.0, top_p=1.0, seed=0))
        assert ours == [token for token in expected if token not in stop]
        lengths.append(len(ours))
    assert max(lengths) == 20
    assert theirs.generation_config.eos_token_id == [tokenizer.eos, tokenizer.end_of_turn]


def test_a_bf16_export_is_half_as_large_and_reloads_everywhere(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours", QWEN3_MOE)
    export_huggingface(folder, tmp_path / "out", dtype="bf16")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    import_huggingface(tmp_path / "out", tmp_path / "back")
    back, ours = load_decoder(tmp_path / "back"), load_decoder(folder)
    for key, value in back.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, ours.state_dict()[key].bfloat16().float())
    with torch.no_grad():
        torch.testing.assert_close(theirs.float()(IDS).logits, back(IDS), atol=1e-4, rtol=0)


def test_half_precision_weights_load_as_fp32(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    tensors = load_file(folder / "model.safetensors")
    save_file({key: value.half() for key, value in tensors.items()}, folder / "model.safetensors")
    import_huggingface(folder, tmp_path / "back")
    assert load_file(tmp_path / "back" / "model.safetensors")["model.norm.weight"].dtype == torch.float32


def test_the_first_published_form_of_gpt2_is_read(tmp_path: Path) -> None:
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=64, n_embd=48, n_layer=2, n_head=4)).eval()
    theirs.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    old = {key.removeprefix("transformer."): value for key, value in tensors.items()}
    old |= {f"h.{layer}.attn.bias": torch.ones(64, 64).tril()[None, None] for layer in range(2)}
    old["lm_head.weight"] = old["wte.weight"].clone()
    save_file(old, tmp_path / "new" / "model.safetensors")
    import_huggingface(tmp_path / "new", tmp_path / "back")
    with torch.no_grad():
        torch.testing.assert_close(
            load_decoder(tmp_path / "back")(IDS), theirs(IDS).logits, atol=1e-4, rtol=0
        )


def test_files_are_readable_by_all_and_nothing_unfinished_is_left(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        export_huggingface(checkpoint(tmp_path / "ours"), tmp_path / "out")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o644}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "out"]


def test_a_taken_target_a_reward_model_and_a_number_without_place_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(GroundupError, match="taken already exists"):
        export_huggingface(folder, tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "mine"
    save_model(tmp_path / "reward", ValueModel(QWEN3))
    with pytest.raises(GroundupError, match="is a reward model or critic"):
        export_huggingface(tmp_path / "reward", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    tensors = load_file(folder / "model.safetensors")
    key = "model.layers.1.mlp.up_proj.weight"
    changed = {name: value for name, value in tensors.items() if name != "model.norm.weight"}
    changed |= {key: tensors[key][:5].clone(), "model.extra": torch.ones(1)}
    save_file(changed, folder / "model.safetensors")
    with pytest.raises(
        DataError,
        match=rf"missing: model\.norm\.weight; unexpected: model\.extra; of another shape: {key} \(5, 48\)",
    ):
        import_huggingface(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["gpt2", "qwen3_moe"])
def test_a_missing_tensor_of_a_form_of_its_own_is_named(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours", PORTABLE[name])
    tensors = load_file(folder / "model.safetensors")
    gone = next(key for key in tensors if key.endswith(("experts.3.up_proj.weight", "h.1.attn.c_attn.bias")))
    save_file({key: value for key, value in tensors.items() if key != gone}, folder / "model.safetensors")
    with pytest.raises(DataError, match=f"missing: {gone}"):
        import_huggingface(folder, tmp_path / "back")


def test_pickles_are_never_read(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no model\.safetensors\. pytorch_model\.bin is a pickle"):
        import_huggingface(folder, tmp_path / "back")


def test_an_index_can_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="is outside its folder"):
        import_huggingface(folder, tmp_path / "back")


def test_a_head_that_contradicts_the_config_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours", PORTABLE["llama"])
    tensors = load_file(folder / "model.safetensors")
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    for head, fine in ((tensors["model.embed_tokens.weight"].clone(), True), (torch.ones(96, 48), False)):
        save_file(tensors | table | {"lm_head.weight": head}, folder / "model.safetensors")
        if fine:
            import_huggingface(folder, tmp_path / "back")
        else:
            with pytest.raises(DataError, match=r"lm_head\.weight differs from the embedding"):
                import_huggingface(folder, tmp_path / "again")


def test_both_commands_and_what_they_say(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64
    )
    folder = checkpoint(tmp_path / "ours", config, tokenizer)
    groundup("export", str(folder), str(tmp_path / "out"), "--dtype", "bf16")
    groundup("import", str(tmp_path / "out"), str(tmp_path / "back"))
    assert capsys.readouterr().out.split() == [str(tmp_path / "out"), str(tmp_path / "back")]
    same = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    for name in same:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )
    with pytest.raises(SystemExit) as left:
        main(["export", "nobody", str(tmp_path / "new"), "--workspace", str(tmp_path / "workspace")])
    assert left.value.code == 2
    assert "there is no run `nobody`" in capsys.readouterr().err


def test_a_run_is_exported_by_its_name_and_a_stage_of_it_by_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "workspace")
    stages = {}
    for seed, (label, kind) in enumerate(
        {"pretrain": "policy", "finetune": "policy", "judge": "reward_model"}.items()
    ):
        stages[label] = store.artifact(label, str(seed) * 64, kind)
        model = decoder(QWEN3, seed)
        save_model(stages[label].path, model)
        write_json(
            stages[label].path / "manifest.json",
            {"fingerprint": str(seed) * 64, "stage": label, "kind": kind},
        )
    store.record_run("mine", stages, {})
    groundup("export", "mine", str(tmp_path / "last"), "--workspace", str(store.root))
    groundup("export", "mine", str(tmp_path / "base"), "--stage", "pretrain", "--workspace", str(store.root))
    for target, label in (("last", "finetune"), ("base", "pretrain")):
        found, wanted = (
            load_decoder(folder).state_dict() for folder in (tmp_path / target, stages[label].path)
        )
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(SystemExit):
        main(["export", "mine", str(tmp_path / "no"), "--stage", "judge", "--workspace", str(store.root)])
    assert (
        "stage `judge` of run `mine` is no policy. Its policies: pretrain, finetune"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        DataError, match=r"the weights model\.layers\.1\.mlp\.up_proj\.weight contain nan or inf"
    ):
        import_huggingface(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def adapter(folder: Path, base: str) -> Path:
    """A LoRA adapter of rank 2 on the queries, in the files that PEFT writes."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors = {
        f"{name}.lora_A.weight": torch.randn(2, 48, generator=generator),
        f"{name}.lora_B.weight": torch.randn(48, 2, generator=generator),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 6, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_lora_folder_is_merged_into_its_base(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", str(base))
    import_huggingface(folder, tmp_path / "merged")
    merged, before = load_decoder(tmp_path / "merged").state_dict(), load_decoder(base).state_dict()
    tensors = {
        name.split(".")[-2]: value for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    name = "model.layers.1.self_attn.q_proj.weight"
    expected = before[name] + 6 / 2 * tensors["lora_B"] @ tensors["lora_A"]
    torch.testing.assert_close(merged[name], expected)
    assert all(torch.equal(merged[other], before[other]) for other in before if other != name)


@pytest.mark.parametrize("base", ["org/model", ""])
def test_a_lora_folder_without_its_base_is_explained(base: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base)
    with pytest.raises(
        DataError, match=f"is a LoRA adapter of `{base}`, which is not a folder here. Download"
    ):
        import_huggingface(folder, tmp_path / "merged")


@pytest.mark.parametrize(
    "name", ["Llama", "Mistral", "Qwen2", "Qwen3", "Olmo2", "Olmo3", "Phi3", "SmolLM3", "Qwen3Moe"]
)
def test_a_model_with_the_defaults_of_its_class_is_imported(name: str, tmp_path: Path) -> None:
    kind = getattr(transformers, f"{name}Config")
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24} if "Moe" in name else {}
    config = kind(
        vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path / "theirs")
    import_huggingface(tmp_path / "theirs", tmp_path / "ours")
    with torch.no_grad():
        torch.testing.assert_close(
            load_decoder(tmp_path / "ours")(IDS), theirs(IDS).logits, atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox", "mamba", "deepseek_v3", "mixtral", "qwen2_moe"])
def test_another_architecture_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ours")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    with pytest.raises(DataError, match=f"model_type = '{kind}'; supported are gpt2, llama"):
        import_huggingface(folder, tmp_path / "back")


def test_verification_without_a_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(checkpoint(tmp_path / "ours")), str(tmp_path / "out"), "--verify"])
    assert stop.value.code == 2
    assert "has no tokenizer.json, which --verify needs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
