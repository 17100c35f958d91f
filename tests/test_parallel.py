"""Parts of a batch that are computed at once give what the whole batch gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from test_packing import tiny_model

from moltlm.adapters import fused
from moltlm.data import packing
from moltlm.data.parallel import in_parts

PROMPTS = [[7, 8, 9, *range(20 + row, 24 + 2 * row)] for row in range(18)]


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_order_threads_and_gradients(four_threads: None) -> None:
    seen = set()

    def double(rows: list[int]) -> list[int]:
        seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled(), len(rows)))
        return [2 * row for row in rows]

    with torch.no_grad():
        assert in_parts(double, range(10), least=5) == [2 * row for row in range(10)]
    assert {(threads, grad, size) for _, threads, grad, size in seen} == {(2, False, 5)}
    assert torch.get_num_threads() == 4
    seen.clear()
    with torch.no_grad():
        assert in_parts(double, range(9), least=5) == [2 * row for row in range(9)]  # too few for two parts
    assert in_parts(double, range(10), least=5) == [2 * row for row in range(10)]  # gradients are asked for
    assert {(ident, size) for ident, _, _, size in seen} == {(threading.get_ident(), 9), (threading.get_ident(), 10)}


def test_an_error_in_a_part_is_that_of_the_whole(four_threads: None) -> None:
    def fail(rows: list[int]) -> list[int]:
        raise ValueError(f"row {rows[0]}")

    with torch.no_grad(), pytest.raises(ValueError, match="row 0"):
        in_parts(fail, range(8), least=2)
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("model_type", packing.ARCHITECTURES)
def test_parts_score_what_one_batch_does(model_type: str, four_threads: None) -> None:
    model = tiny_model(model_type).eval()
    fused.fuse(model)
    config = packing.inner(model).config.get_text_config()
    rows = [(prompt, prompt[3:]) for prompt in PROMPTS]
    torch.set_num_threads(1)
    with torch.no_grad():
        expected = packing.completion_logits(model, rows)
    torch.set_num_threads(4)
    before = config._attn_implementation
    with torch.no_grad():
        for one, other in zip(packing.completion_logits(model, rows), expected, strict=True):
            torch.testing.assert_close(one, other)
    assert config._attn_implementation == before
