"""Exports give what was trained, and are refused when they do not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoModelForCausalLM

from moltlm.adapters import architecture, base, card, export, serve, vllm
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.llama_cpp import families, whole
from moltlm.data import state as states
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.persona import user
from tests.test_compose import trained

PROMPTS, ANSWERS = [user("hello"), user("what is rain?")], ["a cup of tea", "water"]


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    personality = trained(tiny, folder / "personality", "personality", 0)
    below = {"personality": card.weights_hash(personality)}
    return [personality, trained(tiny, folder / "shell", "shell", 1, 6, below)]


def model(tiny: Path, precision: str) -> ModelConfig:
    return ModelConfig.model_validate({"id": str(tiny), "precision": precision, "compute_dtype": "float32"})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
@pytest.mark.parametrize("count", [1, 2])
def test_every_export_gives_what_was_trained(
    tiny: Path, tmp_path: Path, folders: list[Path], precision: str, count: int
) -> None:
    config, stack = model(tiny, precision), folders[:count]
    made = export.adapter(config, stack, tmp_path / "adapter")
    assert made.rank == (4 if count == 1 else 10) and made.error < 1e-6
    export.merged(config, stack, tmp_path / "merged")
    assert card.read(tmp_path / "adapter").training.get("of", {}).keys() == (
        {"personality", "shell"} if count == 2 else set()
    )
    checks = [export.check(config, stack, tmp_path / name, PROMPTS, ANSWERS) for name in ("adapter", "merged")]
    assert checks[0].kl < (1e-6 if precision == "fp32" else 1e-2)
    assert all((check.shift is None) == (precision != "nf4") for check in checks)
    if precision == "nf4":
        assert checks[0].shift is not None and checks[0].shift > 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(plain, "peft_config") and not getattr(plain.config, "quantization_config", None)


def test_anyone_can_load_the_adapter_with_peft_alone(tiny: Path, tmp_path: Path, folders: list[Path]) -> None:
    export.adapter(model(tiny, "fp32"), folders, tmp_path / "adapter")
    served = serve.Served(base.load(model(tiny, "fp32")))
    for name, folder in zip(("p", "t"), folders, strict=True):
        served.load(name, folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with served.state(states.of("p", "t")), torch.no_grad():
        wanted = served.model(input_ids=ids).logits
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(tmp_path / "adapter"))
    with torch.no_grad():
        assert torch.allclose(found(input_ids=ids).logits, wanted, atol=1e-4)
    assert card.read(tmp_path / "adapter").adapters_below == {}


def test_an_export_that_is_something_else_is_refused(tiny: Path, tmp_path: Path, folders: list[Path]) -> None:
    config = model(tiny, "fp32")
    loud = trained(tiny, tmp_path / "loud", "loud", 2, std=0.5)
    export.adapter(config, folders[:1], tmp_path / "adapter")
    with pytest.raises(MoltError, match="does not answer as the trained model"):
        export.check(config, [folders[0], loud], tmp_path / "adapter", PROMPTS, ANSWERS)


def test_a_dequantised_base_has_the_positions_that_it_was_trained_with(tiny: Path) -> None:
    config = model(tiny, "nf4")
    trained_on, whole = base.load(config).model.model.rotary_emb, export.dequantised(config).model.model
    assert whole.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert torch.equal(whole.rotary_emb.inv_freq, trained_on.inv_freq) and trained_on.inv_freq.dtype == torch.float32


def test_files_for_vllm(tmp_path: Path) -> None:
    vllm.write(tmp_path, "meta/llama 8b", False, "bo-1234", 20)
    text = (tmp_path / "serve.sh").read_text()
    assert "--max-lora-rank 32 " in text and "'meta/llama 8b'" in text and 'bo-1234="$here"' in text
    shell = f'vllm() {{ printf "%s\\n" "$@"; }}; exec() {{ "$@"; }}; set -- ; . {tmp_path / "serve.sh"}'
    arguments = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert arguments[:2] == ["serve", "meta/llama 8b"] and json.loads(arguments[-1])["temperature"] == 0
    vllm.write(tmp_path, "mine", True, "bo-1234", 20)
    refused = subprocess.run(["sh", tmp_path / "serve.sh"], capture_output=True, text=True)
    assert refused.returncode and "usage: sh serve.sh FOLDER, with mine as it was trained on" in refused.stderr
    with pytest.raises(BadInput, match="up to rank 512"):
        vllm.write(tmp_path, "x", False, "bo", 513)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
def test_a_whole_model_in_gguf_is_what_was_trained(
    tiny: Path, tmp_path: Path, folders: list[Path], count: int, quant: str
) -> None:
    """transformers reads it, with its own idea of names and of the order of rows."""
    config, stack = model(tiny, "fp32"), folders[:count]
    export.gguf(config, stack, tmp_path, quant, "it")
    checked = export.check(config, stack, tmp_path, PROMPTS, ANSWERS)
    assert checked.kl < (1e-6 if quant == "F16" else 1e-3)
    fields = GGUFReader(tmp_path / export.MODEL_FILE).fields
    tokenizer = base.load_text(config).tokenizer
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eot_token_id"].contents() == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not fields["tokenizer.ggml.add_bos_token"].contents()


def test_an_adapter_in_gguf_adds_what_was_trained(tiny: Path, tmp_path: Path, folders: list[Path]) -> None:
    """In the layout of GGUF, base and adapter add up to the merged model."""
    config, stack = model(tiny, "fp32"), folders
    export.adapter(config, stack, tmp_path)
    export.gguf_adapter(config, tmp_path, "it")
    reader = GGUFReader(tmp_path / export.ADAPTER_FILE)
    parts = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    family = families.family_of(architecture.load(config), True)
    before = dict(whole.tensors(export.merge(config, []).model, family))
    after = dict(whole.tensors(export.merge(config, stack).model, family))
    changed = {name.rpartition(".")[0] for name in parts}
    rank = parts[f"{min(changed)}.lora_b"].shape[1]
    scale = reader.fields["adapter.lora.alpha"].contents() / rank
    for name in before:
        delta = parts[f"{name}.lora_b"] @ parts[f"{name}.lora_a"] * scale if name in changed else 0
        assert torch.allclose(before[name] + delta, after[name], atol=1e-5)
    assert len(changed) == 2 * 7


def test_what_llama_cpp_cannot_express_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = model(tiny, "fp32")
    with pytest.raises(BadInput, match="no form Q3"):
        export.check_gguf(config, "Q3")
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "model_type": "gpt_neox"}))
    with pytest.raises(BadInput, match="GGUF adapter of the architecture gpt_neox is not written here"):
        export.check_gguf(config.model_copy(update={"id": str(other)}), None)
    (other / "config.json").write_text(json.dumps(settings))
    words = json.loads((other / "tokenizer.json").read_text())
    words["pre_tokenizer"] = {"type": "Whitespace"}
    (other / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(BadInput, match="splits a text has no name here"):
        export.check_gguf(config.model_copy(update={"id": str(other)}), "Q8_0")
