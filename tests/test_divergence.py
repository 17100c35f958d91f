"""A training that diverges, breaks off, or is served above something else is noticed and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import job, personality, settings, weights
from transformers import AutoModelForCausalLM

from moltlm.adapters import base, card, serve, trainers, training
from moltlm.adapters.config import CHECKPOINTS, ModelConfig
from moltlm.adapters.personality import train_personality
from moltlm.data.errors import BadInput, MoltError


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_diverged_training_names_step_batch_and_rate(tiny: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(MoltError) as stopped:
        personality(tiny, tmp_path / "p", personality={"learning_rate": rate, "steps": 8}, train={"max_grad_norm": 1e9})
    assert "diverged" in stopped.value.what or "did not move" in stopped.value.what
    assert "Lower the learning rate" in stopped.value.fix
    assert not (tmp_path / "p" / "adapter_model.safetensors").exists()


def test_the_loss_that_is_not_finite_is_named_with_its_examples(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step's loss is NaN."""
    original = trainers.StageTrainer.training_step
    steps = 0

    def broken(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return original(self, model, inputs, *args, **kwargs) * (torch.nan if steps == 3 else 1.0)

    monkeypatch.setattr(trainers.StageTrainer, "training_step", broken)
    with pytest.raises(MoltError, match=r"loss is nan at step 3, on 8 rows: [0-9a-f]{12} '"):
        personality(tiny, tmp_path / "p", personality={"steps": 6}, train={"gradient_accumulation": 1})


def test_weights_that_are_not_finite_are_not_saved(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p")
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    served = serve.Served(loaded)
    served.load("personality", tmp_path / "p")
    next(value for name, value in served.model.named_parameters() if "lora_B" in name).data[0, 0] = torch.inf
    with pytest.raises(MoltError, match="is not finite"):
        training.save(served.model, tmp_path / "q", "personality")


def test_another_scale_by_hand_is_refused(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p")
    path = tmp_path / "p" / "adapter_config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "lora_alpha": raw["lora_alpha"] * 8}))
    with pytest.raises(BadInput, match=r"adapter_config\.json .* is not what was written"):
        serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32"))).load("personality", tmp_path / "p")


def test_other_layers_under_the_same_embeddings_are_refused(tiny: Path, tmp_path: Path) -> None:
    """The same layers in two files or in another precision are the same base; one changed layer is another."""
    shutil.copytree(tiny, tmp_path / "base")
    where = ModelConfig(id=str(tmp_path / "base"), precision="fp32")
    personality(tmp_path / "base", tmp_path / "p")
    assert card.read(tmp_path / "p").base_layers
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="100KB")
    (tmp_path / "base" / "model.safetensors").unlink()
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    serve.Served(base.load(where)).load("personality", tmp_path / "p")
    model.model.layers[1].mlp.up_proj.weight.data *= 1.5
    model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    with pytest.raises(BadInput, match="trained on other layers"):
        serve.Served(base.load(where)).load("personality", tmp_path / "p")


def cut_off(tiny: Path, folder: Path, at: int = 5) -> Path:
    """A training killed in step 5 of 6, which has checkpoints of steps 2 and 4. Returns those."""

    def killed(done: int, total: int, note: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    config = settings(tiny, personality={"steps": 6}, train={"checkpoint_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_personality(job(config, folder, progress=killed))
    assert sorted(path.name for path in (folder / CHECKPOINTS).glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return folder / CHECKPOINTS


@pytest.mark.parametrize(
    "broken", ["trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "all"]
)
@pytest.mark.parametrize("how", ["half", "gone"])
def test_a_broken_checkpoint_is_passed_over_with_a_word(
    tiny: Path, tmp_path: Path, broken: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = cut_off(tiny, tmp_path / "cut")
    for path in (checkpoints / "checkpoint-4").iterdir():
        if broken in (path.name, "all"):
            half = path.read_bytes()[: path.stat().st_size // 2]
            path.write_bytes(half) if how == "half" else path.unlink()
    if (broken, how) == ("rng_state.pth", "gone"):
        return  # the trainer does without it
    resumed = training.newest(checkpoints)
    assert resumed and resumed.endswith("checkpoint-2")
    assert "checkpoint-4 is broken" in caplog.text and not (checkpoints / "checkpoint-4").exists()


def test_a_training_goes_on_before_a_broken_checkpoint_to_the_same_end(tiny: Path, tmp_path: Path) -> None:
    config = settings(tiny, personality={"steps": 6}, train={"checkpoint_every": 2})
    train_personality(job(config, tmp_path / "whole"))
    checkpoints = cut_off(tiny, tmp_path / "cut")
    (checkpoints / "checkpoint-4" / "optimizer.pt").write_bytes(b"PK")
    train_personality(job(config, tmp_path / "cut"))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert not [path for path in (tmp_path / "cut").iterdir() if path.name.startswith(CHECKPOINTS)]
