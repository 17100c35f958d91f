"""bf16 through fp32 on a CPU without instructions for it."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import linear

from adapters import cpu


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
