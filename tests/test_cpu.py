"""bf16 through fp32 on a CPU without instructions for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import LinearNF4
from torch.nn.functional import linear

from moltlm.adapters import base, cpu
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.serve import TextModel
from moltlm.data import packing
from moltlm.data.types import Message
from tests.conftest import talkative


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    there = cpu.install.cache_info().currsize
    library = cpu.install()
    yield
    if not there:
        library._destroy()
        cpu.install.cache_clear()


def matrix(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def rounded(product: torch.Tensor) -> torch.Tensor:
    return product.to(torch.bfloat16)


def test_a_product_is_that_of_the_same_numbers_in_fp32_rounded_once() -> None:
    a, b, bias = matrix(7, 33), matrix(33, 12), matrix(12)
    assert torch.equal(a @ b, rounded(a.float() @ b.float()))
    assert torch.equal(
        torch.addmm(bias, a, b, alpha=0.5), rounded(torch.addmm(bias.float(), a.float(), b.float(), alpha=0.5))
    )
    c, d, bias = matrix(3, 5, 33), matrix(3, 33, 6), matrix(3, 5, 6)
    assert torch.equal(c @ d, rounded(c.float() @ d.float()))
    assert torch.equal(torch.baddbmm(bias, c, d), rounded(torch.baddbmm(bias.float(), c.float(), d.float())))


def test_transposed_and_sliced_matrices_are_multiplied_as_they_are_seen() -> None:
    a, b = matrix(12, 40)[:, 3:36], matrix(50, 33)[::2]
    assert torch.equal(a @ b.T, rounded(a.float() @ b.float().T))


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_go_the_same_way(autocast: bool) -> None:
    x, w = matrix(2, 5, 33).requires_grad_(), matrix(12, 33).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = linear(x, w)
    up = matrix(*y.shape)
    y.backward(up)
    assert x.grad is not None and w.grad is not None
    assert torch.equal(x.grad, rounded(up.float() @ w.detach().float()))
    assert torch.equal(w.grad, rounded(up.float().flatten(0, 1).T @ x.detach().float().flatten(0, 1)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("compute", "autocast"), [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float32, False)]
)
def test_weights_that_are_kept_dequantised_give_the_same_bits(compute: torch.dtype, autocast: bool, bias: bool) -> None:
    layer = LinearNF4(128, 96, bias=bias, compute_dtype=compute).to("cpu").requires_grad_(False)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        x = matrix(2, 5, 128).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)
        (found,) = torch.autograd.grad(y, x, matrix(*y.shape))
        return y, found

    before = both()
    assert cpu.keep_dequantised(torch.nn.ModuleList([layer]))
    layer.weight.data.zero_()  # what is multiplied by is no longer this
    after = both()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert before[0].dtype == after[0].dtype


def test_weights_that_do_not_fit_are_dequantised_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LinearNF4(128, 96, compute_dtype=torch.bfloat16).to("cpu")
    monkeypatch.setattr(cpu, "ROOM_GIB", 128 * 96 * 4 / 2**30 * 0.99)
    assert not cpu.keep_dequantised(layer)
    layer.weight.data.zero_()
    before = layer(matrix(3, 128))
    layer.weight.data.fill_(255)
    assert not torch.equal(layer(matrix(3, 128)), before)


@pytest.mark.parametrize(
    ("slow", "softcap", "used"), [(True, None, "sdpa"), (False, None, "eager"), (True, 30.0, "eager")]
)
def test_answers_are_the_same_whatever_attention_gives_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool, softcap: float | None, used: str
) -> None:
    loaded = base.load(ModelConfig(id=str(talkative(tiny, tmp_path)), precision="fp32", attention="eager"))
    text, config = TextModel(loaded.model, loaded.tokenizer), loaded.model.config
    prompts: list[list[Message]] = [[{"role": "user", "content": "a" * n}] for n in (1, 30)]
    monkeypatch.setattr(packing, "possible", lambda model: False)  # which has an attention of its own
    monkeypatch.setattr(cpu, "speed_bf16", lambda: False)
    expected = text.generate(prompts, 8, 2)
    assert any(expected)
    seen = set[str]()

    def see(*_: Any) -> None:
        seen.add(config._attn_implementation)

    loaded.model.model.layers[0].register_forward_pre_hook(see)
    monkeypatch.setattr(cpu, "speed_bf16", lambda: slow)
    config.attn_logit_softcapping = softcap
    assert text.generate(prompts, 8, 2) == expected
    assert seen == {used}
    assert config._attn_implementation == "eager"


def test_attention_is_as_it_was_after_an_error(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32", attention="eager"))
    monkeypatch.setattr(cpu, "speed_bf16", lambda: True)
    with pytest.raises(RuntimeError), cpu.answering(loaded.model):
        assert loaded.model.config._attn_implementation == "sdpa"
        raise RuntimeError
    assert loaded.model.config._attn_implementation == "eager"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_other_types_are_multiplied_as_before(dtype: torch.dtype) -> None:
    a, b = (10 * matrix(7, 33, dtype=torch.float64)).to(dtype), (10 * matrix(33, 12, dtype=torch.float64)).to(dtype)
    expected = (a.double() @ b.double()).to(dtype)
    assert (a @ b).dtype == dtype
    torch.testing.assert_close(a @ b, expected, rtol=1e-4, atol=1e-3)


def test_an_autograd_gradient_of_fp32_is_that_of_finite_differences() -> None:
    a, b = matrix(3, 4, dtype=torch.float64).requires_grad_(), matrix(4, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(torch.mm, (a, b))


@pytest.mark.parametrize(("native", "expected"), [(1.0, False), (1.9, False), (2.1, True)])
def test_it_is_done_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch, native: float, expected: bool) -> None:
    took = iter([native, 1.0])
    done: list[bool] = []
    monkeypatch.setattr(cpu, "_seconds", lambda *_: next(took))
    monkeypatch.setattr(cpu, "install", lambda: done.append(True))
    assert cpu.speed_bf16.__wrapped__() == expected
    assert bool(done) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "150000 100000"}, 2),
        ({"jobs/one/cpu.max": "max 100000", "jobs/cpu.max": "300000 100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_processors_are_those_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    (tmp_path / "own").write_text("0::/jobs/one\n")
    assert cpu.processors(tmp_path / "fs", tmp_path / "own") == expected
