"""Exports give what was trained, and are refused when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from moltlm.adapters import base, card, export, serve
from moltlm.adapters.config import ModelConfig
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


def test_files_for_servers(tmp_path: Path) -> None:
    export.ollama("llama3.1:8b", tmp_path)
    text = (tmp_path / "Modelfile").read_text()
    assert "\nFROM llama3.1:8b\nADAPTER .\n" in text
    export.vllm("meta/llama 8b", "bo", 20, tmp_path)
    text = (tmp_path / "serve.sh").read_text()
    assert "--max-lora-rank 32 " in text and "'meta/llama 8b'" in text and 'bo="$here"' in text
    with pytest.raises(BadInput, match="up to rank 512"):
        export.vllm("x", "bo", 513, tmp_path)
