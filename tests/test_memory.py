"""Where memory runs out, less at a time gives the same, and what does not fit at all is one clear error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import personality, weights

from moltlm.adapters import base, serve, trainers
from moltlm.adapters.config import ModelConfig
from moltlm.data import memory
from moltlm.data.errors import MoltError
from moltlm.data.persona import user
from moltlm.pipeline import cli


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let micro-batches of more examples run out of memory; the sizes that were tried."""
    original, tried = trainers.StageTrainer.training_step, list[int]()

    def small(self: Any, *arguments: Any, **options: Any) -> Any:
        tried.append(self.args.per_device_train_batch_size)
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(self, *arguments, **options)

    monkeypatch.setattr(trainers.StageTrainer, "training_step", small)
    return tried


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_training_that_is_short_of_memory_gives_the_same_adapter(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    settings = {"method": method, "batch_size": 4, "steps": 3}
    personality(tiny, tmp_path / "whole", personality=settings, train={"gradient_accumulation": 1})
    tried = limit(monkeypatch, 1)
    personality(tiny, tmp_path / "short", personality=settings, train={"gradient_accumulation": 1})
    assert list(dict.fromkeys(tried)) == [4, 2, 1]
    whole, short = weights(tmp_path / "whole"), weights(tmp_path / "short")
    assert all(torch.allclose(whole[name], short[name], atol=1e-4) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "short" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_a_training_that_does_not_fit_at_all_is_one_error(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limit(monkeypatch, 0)
    with pytest.raises(MoltError, match="Out of memory for a single example") as stopped:
        personality(tiny, tmp_path / "p", personality={"batch_size": 4}, train={"gradient_accumulation": 1})
    assert tried == [4, 2, 1] and "molt estimate" in stopped.value.fix
    assert not (tmp_path / "p" / "adapter_model.safetensors").exists()


def test_answers_and_scores_are_the_same_half_by_half(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    model = serve.TextModel(loaded.model, loaded.tokenizer)
    prompts = [user("tea " * count) for count in range(1, 6)]
    answers, scores = model.generate(prompts, 6, 5), model.score(prompts, ["rain"] * 5, 5)
    for name in ("_continued", "completion_logits"):
        original = getattr(serve.TextModel, name)

        def small(self: Any, rows: Any, *arguments: Any, original: Any = original) -> Any:
            if len(rows) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(self, rows, *arguments)

        monkeypatch.setattr(serve.TextModel, name, small)
    assert model.generate(prompts, 6, 5) == answers
    for short, whole in zip(model.score(prompts, ["rain"] * 5, 5), scores, strict=True):
        assert short.logprob == pytest.approx(whole.logprob, abs=1e-4) and short.tokens == whole.tokens


@settings(
    max_examples=30
)  # each attempt that fails collects garbage, which takes a tenth of a second beside other tests
@given(st.lists(st.integers(), min_size=1, max_size=12), st.integers(1, 12))
def test_parts_give_what_the_whole_gives(rows: list[int], most: int) -> None:
    def doubled(part: Sequence[int]) -> list[int]:
        if len(part) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return [2 * row for row in part]

    assert memory.in_parts(doubled, rows) == [2 * row for row in rows]


@given(st.integers(1, 64), st.integers(1, 64))
def test_a_batch_is_cut_into_equal_parts_down_to_single_examples(batch: int, count: int) -> None:
    if batch % count == 0:
        counts = list(memory.accumulations(batch, count))
        assert counts[0] == count and counts[-1] == batch
        assert all(batch % each == 0 for each in counts)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "Out of memory"),
        (MemoryError(), "Out of memory"),
        (RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"), "The disk is full"),
        (OSError(28, "No space left on device"), "The disk is full"),
        (OSError(30, "Read-only file system", "x"), "cannot be used"),
    ],
)
def test_what_the_machine_does_not_allow_is_one_error(
    error: Exception, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "demo"])
    assert stopped.value.code == 2 and what in capsys.readouterr().err


def test_another_error_is_no_matter_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: list[str]) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["run", "demo"])
