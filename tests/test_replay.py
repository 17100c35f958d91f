"""The replay buffer: what is chosen, what it stands for, how it is stored, and how it is mixed in."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.data import replay, selectors, topk
from moltlm.data.config import ReplayConfig, TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.mix import mix, stream
from moltlm.data.persona import user
from moltlm.data.replay import Candidate
from moltlm.data.types import Exchange


def exchange(i: int, topic: str = "t", trait: str = "") -> Exchange:
    return Exchange(user(f"question {i}"), f"answer {i}", topic, trait)


def unit(n: int, seed: int = 0, d: int = 8) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pool(n: int, seed: int = 0, d: int = 8, tokens: int | None = 1, groups: int = 3) -> selectors.Pool:
    rng = np.random.default_rng(seed)
    return selectors.Pool(
        embeddings=unit(n, seed, d),
        tokens=np.full(n, tokens) if tokens else rng.integers(1, 30, n),
        importance=rng.random(n),
        groups=rng.integers(0, groups, n),
        mass=rng.integers(1, 4, n).astype(float),
        arrived=np.arange(n),
        key=rng.random(n),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(0, 5),
    st.integers(1, 300),
    st.sampled_from(selectors.METHODS),
    st.booleans(),
)
def test_every_choice_keeps_to_its_budget_and_is_the_same_again(
    n: int, seed: int, budget: int, method: str, stratify: bool
) -> None:
    given_ = pool(n, seed, tokens=None)
    kept = selectors.choose(given_, method, budget, seed, stratify=stratify)
    assert given_.tokens[kept].sum() <= budget
    assert len(kept) or given_.tokens.min() > budget  # what fits is not lost to what does not
    assert len(set(kept.tolist())) == len(kept)
    assert kept.tolist() == selectors.choose(given_, method, budget, seed, stratify=stratify).tolist()
    left = budget - given_.tokens[kept].sum()
    if method not in ("reservoir", "recency"):  # those stop at the first that does not fit
        assert not (np.delete(given_.tokens, kept) <= left).any()


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_objective_is_monotone_and_submodular(weight: float) -> None:
    whole = selectors.objective(pool(12), 5, weight)
    for small in combinations(range(5), 2):
        for extra in range(5, 9):
            large = np.array([*small, 9, 10])
            one, two = np.array([*small, extra]), np.array([*large, extra])
            gain_small = whole.value(one) - whole.value(np.array(small))
            gain_large = whole.value(two) - whole.value(large)
            assert gain_small >= gain_large - 1e-9
            assert gain_large >= -1e-9


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_choice_is_close_to_the_best_of_all(weight: float) -> None:
    """Against every subset of four among twelve."""
    for seed in range(5):
        given_ = pool(12, seed)
        whole = selectors.objective(given_, 4, weight)
        best = max(whole.value(np.array(subset)) for subset in combinations(range(12), 4))
        assert whole.value(selectors.submodular(given_, 4, seed, weight)) >= 0.97 * best


def exact_greedy(given_: selectors.Pool, k: int) -> np.ndarray:
    """Plain greedy on all pairs, for comparison."""
    similarity = np.maximum(given_.embeddings @ given_.embeddings.T, 0)
    covered, kept = np.zeros(len(given_), dtype=np.float32), []
    for _ in range(k):
        gain = np.maximum(similarity - covered, 0) @ given_.mass
        gain[kept] = -1
        kept.append(int(gain.argmax()))
        covered = np.maximum(covered, similarity[kept[-1]])
    return np.array(kept)


def test_sampled_candidates_and_clients_lose_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a million, in small: a part of the candidates and clients, then the refinement on all."""
    centres = unit(40, 1, 32)
    rng = np.random.default_rng(2)
    rows = centres[rng.integers(0, 40, 2000)] + 0.15 * rng.standard_normal((2000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    given_ = replace(pool(2000), embeddings=rows)
    whole = selectors.objective(given_, 20, 0.0)
    exact = whole.value(exact_greedy(given_, 20))
    random = whole.value(rng.choice(2000, 20, replace=False))
    assert whole.value(selectors.choose(given_, "facility_location", 20, 0)) >= 0.99 * exact
    monkeypatch.setattr(selectors, "CANDIDATES", 400)
    monkeypatch.setattr(selectors, "CLIENTS", 800)
    assert whole.value(selectors.choose(given_, "facility_location", 20, 0)) - random >= 0.9 * (exact - random)


def test_refinement_never_makes_it_worse() -> None:
    for seed in range(10):
        given_ = pool(80, seed, tokens=None)
        whole = selectors.objective(given_, 120, 0.5)
        start = selectors.choose(given_, "uniform", 120, seed)
        better = selectors._refine(whole, start, 120)
        assert whole.value(better) >= whole.value(start)
        assert given_.tokens[better].sum() <= 120
        assert len(set(better.tolist())) == len(better)


def test_k_center_is_within_twice_the_best_radius() -> None:
    for seed in range(5):
        given_ = pool(14, seed, d=3)

        def radius(kept: np.ndarray, given_: selectors.Pool = given_) -> float:
            return float(np.linalg.norm(given_.embeddings[:, None] - given_.embeddings[kept], axis=2).min(1).max())

        best = min(radius(np.array(subset)) for subset in combinations(range(14), 3))
        assert radius(selectors.choose(given_, "k_center", 3, 0)) <= 2 * best + 1e-6


def test_herding_keeps_the_mean() -> None:
    given_ = pool(300, d=16)
    mean = given_.mass @ given_.embeddings / given_.mass.sum()
    near = np.linalg.norm(given_.embeddings[selectors.choose(given_, "herding", 20, 0)].mean(0) - mean)
    by_chance = [
        np.linalg.norm(given_.embeddings[selectors.choose(given_, "uniform", 20, s)].mean(0) - mean) for s in range(20)
    ]
    assert near < min(by_chance)


def test_importance_recency_and_uniform_choose_what_they_say() -> None:
    given_ = replace(pool(20), importance=np.arange(20.0), tokens=np.full(20, 10))
    assert set(selectors.choose(given_, "importance", 50, 0)) == {15, 16, 17, 18, 19}
    assert set(selectors.choose(given_, "recency", 50, 0)) == {15, 16, 17, 18, 19}
    assert set(selectors.choose(given_, "uniform", 50, 0)) != set(selectors.choose(given_, "uniform", 50, 1))


def test_strata_have_equal_shares_and_small_ones_give_theirs_away() -> None:
    groups = np.array([0] * 17 + [1] * 2 + [2])
    given_ = replace(pool(20), groups=groups, tokens=np.full(20, 10))
    for method in ("importance", "uniform", "facility_location", "combined", "k_center", "herding"):
        kept = selectors.choose(given_, method, 90, 0, stratify=True)
        assert np.bincount(groups[kept]).tolist() == [6, 2, 1]


def test_importance_is_spread_over_traits_and_topics() -> None:
    """The one objective: two important ones of one group are worth less than one each of two."""
    given_ = replace(pool(4), importance=np.array([1.0, 1.0, 0.9, 0.0]), groups=np.array([0, 0, 1, 1]))
    assert set(selectors.choose(given_, "combined", 2, 0, importance_weight=100)) == {0, 2} or set(
        selectors.choose(given_, "combined", 2, 0, importance_weight=100)
    ) == {1, 2}


def candidates(n: int, start: int = 0, tokens: int = 10) -> list[Candidate]:
    return [Candidate(exchange(i, f"t{i % 3}"), float(i % 7), tokens) for i in range(start, start + n)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5), st.sampled_from(["reservoir", "recency"]), st.integers(0, 9)
)
def test_a_streamed_buffer_is_the_one_that_saw_all_at_once(sizes: list[int], method: str, seed: int) -> None:
    config = ReplayConfig(select=method, budget_tokens=100)  # type: ignore[arg-type]
    rows, vectors = candidates(sum(sizes)), unit(sum(sizes))
    at_once = replay.build(rows, vectors, config, seed)
    at = 0
    streamed = None
    for size in sizes:
        part = (rows[at : at + size], vectors[at : at + size])
        streamed = replay.build(*part, config, seed) if streamed is None else replay.update(streamed, *part)
        at += size
    assert streamed is not None
    assert {item.id for item in streamed.items} == {item.id for item in at_once.items}
    assert streamed.offered == at_once.offered == sum(sizes)


@pytest.mark.parametrize("method", selectors.METHODS)
def test_an_update_needs_nothing_that_was_left_out(method: str) -> None:
    config = ReplayConfig(select=method, budget_tokens=100)  # type: ignore[arg-type]
    first = replay.build(candidates(60), unit(60), config, 3)
    second = replay.update(first, candidates(40, start=60), unit(40, 5))
    assert second.tokens <= 100
    assert sum(item.mass for item in second.items) == pytest.approx(100)  # each old one still counts for many
    assert second.offered == 100
    again = replay.update(first, candidates(40, start=60), unit(40, 5))
    assert [item.id for item in again.items] == [item.id for item in second.items]


def test_a_streamed_choice_covers_what_was_seen_before() -> None:
    """Twenty batches of one topic each: at the end the first ones are still covered about as well as at once."""
    centres = unit(20, 1, 16)
    rng = np.random.default_rng(0)
    rows = np.repeat(centres, 50, axis=0) + 0.1 * rng.standard_normal((1000, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    config = ReplayConfig(select="facility_location", budget_tokens=400)
    buffer = replay.build(candidates(50), rows[:50], config, 0)
    for start in range(50, 1000, 50):
        buffer = replay.update(buffer, candidates(50, start), rows[start : start + 50])
    _, nearest = selectors.assign(rows, buffer.embeddings.astype(np.float32))
    at_once = replay.build(candidates(1000), rows, config, 0)
    _, best = selectors.assign(rows, at_once.embeddings.astype(np.float32))
    assert nearest.mean() >= 0.95 * best.mean()
    recent = replay.build(candidates(1000), rows, ReplayConfig(select="recency", budget_tokens=400), 0)
    assert nearest.mean() > selectors.assign(rows, recent.embeddings.astype(np.float32))[1].mean() + 0.1


def test_equal_exchanges_become_one_that_counts_for_all() -> None:
    rows = [*candidates(5), *candidates(5)]
    buffer = replay.build(rows, np.concatenate([unit(5), unit(5)]), ReplayConfig(budget_tokens=1000), 0)
    assert sorted(item.mass for item in buffer.items) == [2] * 5


def test_a_budget_that_fits_nothing_says_so() -> None:
    with pytest.raises(BadInput, match="No exchange fits"):
        replay.build([Candidate(exchange(0), 1.0, 500)], unit(1), ReplayConfig(budget_tokens=50), 0)


def distribution(seed: int, t: int = 5, vocabulary: int = 300, k: int = 8) -> tuple[topk.TopK, np.ndarray]:
    logits = np.random.default_rng(seed).standard_normal((t, vocabulary)) * 3
    logp = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    ids = np.argsort(-logp, axis=1)[:, :k]
    top = np.take_along_axis(logp, ids, 1)
    rest = logp.copy()
    np.put_along_axis(rest, ids, -np.inf, 1)
    p = np.exp(rest)
    plogp = np.where(p > 0, p * np.where(np.isfinite(rest), rest, 0), 0).sum(1)
    return topk.TopK(ids, top.astype(np.float32), np.logaddexp.reduce(rest, axis=1).astype(np.float32)), plogp


def dense(row: topk.TopK, vocabulary: int) -> np.ndarray:
    """What a stored row says of every token."""
    full = np.repeat((row.log_tail - np.log(vocabulary - row.ids.shape[1]))[:, None], vocabulary, 1).astype(np.float64)
    np.put_along_axis(full, row.ids, row.logprobs.astype(np.float64), 1)
    return full - np.logaddexp.reduce(full, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", topk.KINDS)
def test_the_cost_of_compression_is_the_kl_of_what_comes_back(kind: str) -> None:
    rows = [distribution(seed, t) for seed, t in enumerate((5, 1, 9))]
    back = topk.unpack(topk.pack([row for row, _ in rows], kind, 300))
    assert [len(row.ids) for row in back] == [5, 1, 9]
    for (row, plogp), stored in zip(rows, back, strict=True):
        assert (row.ids == stored.ids).all()
        assert np.abs(row.logprobs - stored.logprobs).max() < 0.03
        log_q = dense(stored, 300)
        p = np.exp(row.logprobs.astype(np.float64))
        listed = (p * (row.logprobs - np.take_along_axis(log_q, row.ids, 1))).sum(1)
        mask = np.ones((len(row.ids), 300), bool)
        np.put_along_axis(mask, row.ids, False, 1)
        rest = plogp - np.exp(row.log_tail) * np.array([log_q[t][mask[t]][0] for t in range(len(row.ids))])
        assert topk.kl_error(row, stored, plogp, 300) == pytest.approx((listed + rest).mean(), abs=1e-6)
        assert topk.kl_error(row, stored, plogp, 300) > topk.rounding_error(row, stored) >= 0
        assert topk.rounding_error(row, stored) < 1e-3
        assert topk.rounding_error(row, row) == pytest.approx(0, abs=1e-12)


def test_more_tokens_cost_less_and_int8_is_smaller() -> None:
    sizes, errors = [], []
    for k in (8, 16, 64):
        row, plogp = distribution(0, k=k)
        packed = topk.pack([row], "int8", 300)
        assert sum(a.nbytes for a in packed.values()) < sum(a.nbytes for a in topk.pack([row], "fp16", 300).values())
        sizes.append(sum(a.nbytes for a in packed.values()))
        errors.append(topk.kl_error(row, topk.unpack(packed)[0], plogp, 300))
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("kind", ["none", *topk.KINDS])
def test_a_stored_buffer_comes_back_and_tampering_is_seen(tmp_path: Path, kind: str) -> None:
    config = ReplayConfig(budget_tokens=100, distribution=kind)  # type: ignore[arg-type]
    buffer = replay.build(candidates(30), unit(30), config, 0)
    if kind != "none":
        rows = {item.id: distribution(i)[0] for i, item in enumerate(buffer.items)}
        buffer = replay.with_distributions(buffer, rows)
    replay.save(buffer, tmp_path, 300)
    back = replay.load(tmp_path)
    assert back.items == buffer.items
    assert (back.embeddings == buffer.embeddings).all() and back.config == config
    assert set(back.distributions) == set(buffer.distributions)
    more = (candidates(20, start=30), unit(20, 9))
    assert [i.id for i in replay.update(back, *more).items] == [i.id for i in replay.update(buffer, *more).items]
    for name in (replay.EXCHANGES, replay.ARRAYS):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BadInput, match="does not match its hash"):
            replay.load(tmp_path)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / replay.ARRAYS).unlink()
    with pytest.raises(BadInput, match="does not match its hash"):
        replay.load(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(5, 120), st.booleans())
def test_trimming_drops_whole_turns_from_the_front(lengths: list[int], limit: int, has_system: bool) -> None:
    system = [{"role": "system", "content": "sss"}] if has_system else []
    prompt = [
        turn for n in lengths for turn in ({"role": "user", "content": "u" * n}, {"role": "assistant", "content": "a"})
    ]
    whole = Exchange(system + prompt[:-1], "end")  # type: ignore[arg-type]

    def count(item: Exchange) -> int:
        return sum(len(turn["content"]) for turn in item.prompt) + len(item.answer)

    shorter = replay.trim(whole, count, limit)
    if shorter is None:
        assert lengths[-1] + 3 + 3 * has_system > limit
        return
    assert count(shorter) <= limit and shorter.prompt[: len(system)] == system
    turns = shorter.prompt[len(system) :]
    assert turns == whole.prompt[-len(turns) :] and turns[0]["role"] == "user"
    if len(shorter.prompt) < len(whole.prompt):
        longer = Exchange([*shorter.prompt[: len(system)], *whole.prompt[-len(turns) - 2 :]], "end")
        assert count(longer) > limit


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.9))
def test_replay_is_its_share_of_the_mix_and_evenly_spread(steps: int, batch: int, ratio: float) -> None:
    taught = [Exchange(user(str(i)), "x", source="task") for i in range(7)]
    task = TaskConfig(kind="shell", steps=max(steps, 2), batch_size=batch, replay_ratio=ratio)
    rows = mix(taught, [exchange(i) for i in range(5)], task.steps, batch, task.replayed, 0)
    assert len(rows) == batch * task.steps
    replayed = [sum(not item.source for item in rows[at : at + batch]) for at in range(0, len(rows), batch)]
    assert sum(replayed) == task.replayed
    assert max(replayed) - min(replayed) <= 1
    if ratio and task.replayed > 1:
        assert abs(sum(replayed) / len(rows) - ratio) <= 0.5 / len(rows) + 1e-9


def test_buffers_are_compared_on_the_same_task_examples() -> None:
    taught = [Exchange(user(str(i)), "x", source="task") for i in range(40)]
    one, two = (mix(taught, [exchange(i) for i in range(n)], 6, 5, 7, 0) for n in (3, 30))
    assert [r.question for r in one if r.source] == [r.question for r in two if r.source]


def test_replay_asked_for_without_a_buffer() -> None:
    with pytest.raises(BadInput, match="buffer is empty"):
        mix([exchange(0)], [], 2, 2, 1, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 100), st.integers(1, 5), st.integers(0, 4), st.integers(0, 3)
)
def test_a_stream_brings_each_example_once_in_order_and_repeats_only_what_has_come(
    steps: int, batch: int, share: int, memory: int, kept: int, seed: int
) -> None:
    replayed = steps * batch * share // 101
    new, old = [exchange(i, "new") for i in range(steps * batch)], [exchange(i, "old") for i in range(kept)]
    rows = stream(new, old, steps, batch, replayed, memory, seed)
    assert len(rows) == steps * batch
    assert rows == stream(new, old, steps, batch, replayed, memory, seed)
    first: list[Exchange] = []
    for step in range(steps):
        part = rows[step * batch : (step + 1) * batch]
        arrived = [item for item in part if item.topic == "new" and item not in first]
        again = [item for item in part if item.topic == "new" and item in first]
        assert [new.index(item) for item in sorted(arrived, key=new.index)] == list(
            range(len(first), len(first) + len(arrived))
        )
        assert set(map(id, again)) <= set(map(id, first))
        first += sorted(arrived, key=new.index)
    assert len(first) >= steps * batch - replayed


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    with pytest.raises(BadInput, match="takes 8 examples, and there are 7"):
        stream([exchange(i) for i in range(7)], [], 2, 4, 0, 4, 0)
