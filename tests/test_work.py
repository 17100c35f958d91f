"""The operations that are counted for an estimate of time are those that torch counts while it computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moltlm.adapters import serve
from moltlm.adapters.config import ShapeConfig
from moltlm.data import packing
from moltlm.data.io import batches
from moltlm.pipeline import config as configs
from moltlm.pipeline.setup.work import Counter, Work, unknown
from tests.test_estimate import WIDE, model_of

CONFIG = configs.load("demo").adapters()
RANK, PROMPT, ANSWER = CONFIG.lora.r, 24, 20


def rows(count: int) -> list[tuple[list[int], list[int]]]:
    """Two answers to each prompt."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        return torch.randint(1, 96, (length,), generator=generator).tolist()

    prompts = [tokens(PROMPT) for _ in range(count)]
    return [(prompt, tokens(ANSWER)) for prompt in prompts for _ in range(2)]


def counted(model: Any, packed: bool = True, batch: int = 4) -> Counter:
    return Counter(serve.TextModel(model, None), WIDE, CONFIG, packed, batch)


def computed(work: Any) -> int:
    """FLOP of `work`, by torch."""
    with FlopCounterMode(display=False) as mode:
        work()
    return mode.get_total_flops()


def test_operations_of_reading_are_those_that_torch_counts() -> None:
    model = model_of(WIDE, RANK)
    with torch.no_grad():
        flop = computed(lambda: [packing.completion_logits(model, list(group)) for group in batches(rows(6), 4)])
    assert counted(model).read(rows(6), adapters=1).read == pytest.approx(flop, rel=0.03)


def test_operations_of_training_are_those_that_torch_counts() -> None:
    model = model_of(WIDE, RANK)

    def step() -> None:
        sum(logits.sum() for logits in packing.completion_logits(model, rows(3))).backward()  # type: ignore[union-attr]

    # of two layers, the first needs no gradient of its input
    assert counted(model).train(rows(3), 6, 1).trained == pytest.approx(computed(step), rel=0.05)


def test_a_prompt_of_two_answers_is_computed_once_where_rows_are_packed() -> None:
    model = model_of(WIDE, RANK)
    packed, padded = (counted(model, each).read(rows(2)).read for each in (True, False))
    layers = 2 * 2 * PROMPT * sum(weight.numel() for name, weight in model.named_parameters() if "proj.base" in name)
    assert padded - packed == layers


def test_checkpointing_computes_the_layers_once_more() -> None:
    model = model_of(WIDE, RANK)
    counter = counted(model)
    train = counter.config.train.model_copy(update={"gradient_checkpointing": True})
    again = Counter(counter.text, WIDE, counter.config.model_copy(update={"train": train}), True, 4)
    assert again.step(10, 5) - counter.step(10, 5) == counter.forward(10, 0, 1)


def test_answers_that_nobody_has_written_share_nothing() -> None:
    answers = unknown([3, 4.4, 0])
    assert list(map(len, answers)) == [3, 4, 1]
    assert len({token for answer in answers for token in answer}) == 8


def test_rounds_of_writing_are_those_of_the_longest_answer_of_each_batch() -> None:
    work = counted(model_of(WIDE, RANK)).write([[1, 2]] * 6, [5.0] * 6, 8)
    assert work.rounds == 2 * 8
    assert work.written == counted(None).forward(30, 30)


def test_more_of_a_part_does_not_load_the_model_more_often() -> None:
    assert Work(read=2, rounds=1, loads=1).times(3) == Work(read=6, rounds=3, loads=1)


@pytest.mark.parametrize("shape", [WIDE, ShapeConfig()])
def test_work_grows_with_the_model(shape: ShapeConfig) -> None:
    counter = Counter(None, shape, CONFIG, True, 4)
    assert counter.step(1, 1) > counter.forward(1, 1, 1) > counter.forward(1, 1) > counter.forward(1, 0) > 0
