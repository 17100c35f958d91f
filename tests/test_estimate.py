"""What a job takes: the estimate of what autograd keeps is compared with what it keeps, and what does not fit is refused
with settings that make it fit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from moltlm.adapters import fused, trainers
from moltlm.adapters.config import ShapeConfig
from moltlm.data import packing
from moltlm.pipeline import config as configs
from moltlm.pipeline.setup import cards, estimate, fitting
from moltlm.pipeline.setup.estimate import Batch
from moltlm.pipeline.setup.parts import Part
from moltlm.pipeline.setup.work import Work
from tests.commands import molt

TINY = ShapeConfig(
    hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, vocab_size=96, tied_embeddings=False
)
WIDE = ShapeConfig(layers=2, vocab_size=96, tied_embeddings=False)
"""Two layers of the embedded model."""


def model_of(shape: ShapeConfig, r: int) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocab_size,
        pad_token_id=0,
    )
    base = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    lora = LoraConfig(r=r, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(base, lora).train()
    trainers.add_compact_lm_head(model.get_base_model())
    fused.fuse(model)
    return model


def kept_floats(model: Any, pairs: int, prompt: int, answer: int) -> int:
    """Numbers that autograd keeps of pairs, without what belongs to the model and without one set of logits."""
    rows = [torch.randint(1, 96, (prompt,)) for _ in range(pairs) for _ in range(2)]
    tokens = torch.stack([torch.cat([rows[k - k % 2], torch.randint(1, 96, (answer,))]) for k in range(2 * pairs)])
    labels = tokens.clone()
    labels[:, :prompt] = -100
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels, fused_lm_head=True)
    return sum(kept.values()) // 4 - 2 * pairs * answer * 96


@pytest.mark.parametrize(("shape", "r"), [(TINY, 4), (WIDE, 16)])
@pytest.mark.parametrize(("pairs", "prompt", "answer"), [(2, 20, 30), (4, 48, 48), (2, 100, 200)])
def test_what_autograd_keeps_is_estimated_within_15_percent(
    shape: ShapeConfig, r: int, pairs: int, prompt: int, answer: int
) -> None:
    model = model_of(shape, r)
    assert packing.possible(model)
    batch = Batch(pairs * (prompt + 2 * answer), 2 * pairs * answer, prompt + answer)
    assert estimate.saved_floats(shape, r, batch) == pytest.approx(kept_floats(model, pairs, prompt, answer), rel=0.15)


@pytest.mark.parametrize("shape", [TINY, WIDE])
def test_parameters_are_counted_exactly(shape: ShapeConfig) -> None:
    model = model_of(shape, 4)
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert estimate.lora_parameters(shape, 4) == trained
    assert estimate.parameters(shape) == sum(value.numel() for value in model.parameters()) - trained


@pytest.mark.parametrize(
    ("config", "machine"),
    [("demo", fitting.Machine("cpu", 2.4)), ("llama-8b", fitting.Machine("cuda", 10.0))],
)
def test_what_does_not_fit_is_made_to_fit_by_settings_that_are_all_needed(
    config: str, machine: fitting.Machine
) -> None:
    def change(settings: list[str]) -> configs.Config:
        return configs.load(config, settings)

    assert fitting.too_large(change([]), machine)
    settings = fitting.remedies(change([]), machine, change)
    assert settings
    assert not fitting.too_large(change(settings), machine)
    for one in settings:
        assert fitting.too_large(change([other for other in settings if other != one]), machine)


def test_what_fits_needs_nothing_and_what_never_fits_gets_no_advice() -> None:
    def change(settings: list[str]) -> configs.Config:
        return configs.load("llama-8b", settings)

    assert fitting.remedies(change([]), fitting.Machine("cuda", 80.0), change) == []
    assert fitting.remedies(change([]), fitting.Machine("cuda", 4.0), change) is None


def test_a_limit_of_the_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting.shutil, "which", lambda name: None)
    (tmp_path / "memory.max").write_text(str(2**30))
    assert fitting.this_machine(tmp_path / "memory.max") == fitting.Machine("cpu", 1.0)
    (tmp_path / "memory.max").write_text("max")
    assert fitting.this_machine(tmp_path / "memory.max").gib > 1


@pytest.mark.parametrize("named", [["demo", "--gib", "2.4"], ["llama-8b", "lora.r=32", "--gib", "8.5", "--gpu"]])
def test_the_command_that_mends_it_runs(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("estimate", *named) == 2
    said = capsys.readouterr().err
    assert "does not fit" in said
    command = " ".join(said.split()).partition("molt estimate ")[2]
    assert molt("estimate", *shlex.split(command)) == 0
    assert "evaluation" in capsys.readouterr().out


def test_a_gpu_without_its_memory_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("estimate", "demo", "--gpu") == 2
    assert "--gpu --gib 24" in capsys.readouterr().err


def test_a_model_that_is_not_here_is_not_fetched_to_time_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "this_machine", lambda: fitting.Machine("cuda", 24.0))
    assert molt("estimate", "llama-8b", "model.id=nobody/nothing") == 0
    assert "nobody/nothing is not on this machine" in capsys.readouterr().out


def test_the_check_of_a_configuration_says_what_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "this_machine", lambda: fitting.Machine("cpu", 2.4))
    assert molt("config", "check", "demo") == 0
    assert "does not fit here: personality, tasks" in capsys.readouterr().out


def test_a_card_has_its_memory_and_a_time_by_its_data_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("estimate", "llama-8b", "--card", "rtx 4090", "--price", "2") == 0
    said = capsys.readouterr().out
    assert "one GPU with 24 GiB" in said and "computed and not measured" in said and "at 2 an hour" in said


def test_at_half_the_share_of_the_peak_all_but_the_loading_takes_twice_as_long() -> None:
    config, on = configs.load("llama-8b"), cards.card("h100")
    work = [
        Part("computed", "", Work(read=1e15, trained=1e15, written=1e12, rounds=9)),
        Part("loaded", "", Work(loads=1)),
    ]
    fast, slow = (cards.seconds(config, work, on, share) for share in (0.4, 0.2))
    assert slow["computed"] == pytest.approx(2 * fast["computed"])
    assert slow["loaded"] == fast["loaded"] > 0


def test_what_does_not_fit_on_a_card_is_refused_with_a_command_that_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert molt("estimate", "llama-8b", "model.precision=fp32", "--card", "RTX 4090") == 2
    command = " ".join(capsys.readouterr().err.split()).partition("molt estimate ")[2]
    assert "--card 'RTX 4090'" in command
    assert molt("estimate", *shlex.split(command)) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--card", "abacus"], "H100"),
        (["--card", "L4", "--gib", "24"], "Leave out --gib"),
        (["--price", "1"], "--card"),
    ],
)
def test_options_of_a_card_that_say_nothing_are_errors(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert molt("estimate", "llama-8b", *options) == 2
    assert said in capsys.readouterr().err
