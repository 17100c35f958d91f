"""Select what to replay: by importance, by coverage, by both as one submodular objective, and by baselines.

Everything works on arrays, in time near-linear in the number of candidates, and never holds all pairs of candidates.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import numpy as np

CANDIDATES = 10240
"""Greedy selection weighs at most this many candidates at a time; the refinement considers all."""
CLIENTS = 40960
"""Greedy selection covers at most this many of the pool; the refinement covers all."""
DRAWS = 3
"""Maximum number of samples of candidates."""
ROUNDS = 20
"""Maximum number of rounds of refinement."""
BLOCK = 16384
METHODS = (
    "combined", "importance", "facility_location", "k_center", "herding", "uniform", "reservoir", "recency",
)  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """The candidates, as arrays of length n.

    `embeddings` (n, d) are of unit length. `mass` is the number of earlier exchanges that a candidate stands for (1 for
    a new one), `arrived` grows with time, `key` is a fixed random number in [0, 1), and `groups` are the strata.
    """

    embeddings: np.ndarray
    tokens: np.ndarray
    importance: np.ndarray
    groups: np.ndarray
    mass: np.ndarray
    arrived: np.ndarray
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Pool:
        """The pool of these candidates only."""
        return Pool(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


def choose(
    pool: Pool,
    method: str,
    budget: int,
    seed: int,
    importance_weight: float = 0.5,
    stratify: bool = False,
    mean: np.ndarray | None = None,
) -> np.ndarray:
    """Select candidates under a budget. Deterministic for the same arguments.

    Args:
        method: one of METHODS.
        budget: maximum number of tokens of all selected candidates.
        stratify: give every group the same share of the budget; what a small group cannot use goes to the others.
            `reservoir` and `recency` are never stratified, so that their buffers can be updated without the candidates
            that were left out.
        mean: for herding, the mean (d,) of all embeddings ever offered; without it, that of the pool.

    Returns:
        The indices of the selected candidates.
    """
    if stratify and method not in ("reservoir", "recency"):
        return _stratified(pool, method, budget, seed, importance_weight, mean)
    if method == "combined":
        return submodular(pool, budget, seed, importance_weight)
    if method == "facility_location":
        return submodular(pool, budget, seed, 0.0)
    if method == "k_center":
        return k_center(pool, budget)
    if method == "herding":
        return herding(pool, budget, mean)
    ranks = {
        "importance": -pool.importance,
        "uniform": np.random.default_rng(seed).random(len(pool)),
        "reservoir": pool.key,
        "recency": -pool.arrived,
    }
    return _fill(pool, np.lexsort((pool.key, ranks[method])), budget, method in ("reservoir", "recency"))


def _fill(pool: Pool, order: np.ndarray, budget: int, strict: bool) -> np.ndarray:
    """Select candidates in this order as far as the budget goes, skipping those that are larger than the whole budget.

    With `strict`, stop at the first that does not fit: then the selection from a union depends only on the selections
    from its parts. Otherwise try the smaller ones after it.
    """
    order = order[pool.tokens[order] <= budget]
    if strict:
        return order[np.cumsum(pool.tokens[order]) <= budget]
    selected, used = [], 0
    smallest = int(pool.tokens.min(initial=1))
    for index in order:
        if used + pool.tokens[index] <= budget:
            selected.append(index)
            used += int(pool.tokens[index])
        if budget - used < smallest:
            break
    return np.array(selected, dtype=int)


def _stratified(
    pool: Pool, method: str, budget: int, seed: int, importance_weight: float, mean: np.ndarray | None
) -> np.ndarray:
    names, sizes = np.unique(pool.groups), {}
    for name in names:
        sizes[name] = int(pool.tokens[pool.groups == name].sum())
    parts, left = [], budget
    for position, name in enumerate(sorted(names, key=lambda name: sizes[name])):
        inside = np.flatnonzero(pool.groups == name)
        share = left // (len(names) - position)
        part = inside[choose(pool.take(inside), method, share, seed, importance_weight, False, mean)]
        parts.append(part)
        left -= int(pool.tokens[part].sum())
    selected = _interleaved(parts)
    return _fill_up(pool, selected, method, left, seed, importance_weight, mean)


def _interleaved(parts: list[np.ndarray]) -> np.ndarray:
    """The first of each part, then the second of each, and so on."""
    ranked = [(rank, place, index) for place, part in enumerate(parts) for rank, index in enumerate(part)]
    return np.array([index for _, _, index in sorted(ranked)], dtype=int)


def _fill_up(
    pool: Pool,
    selected: np.ndarray,
    method: str,
    left: int,
    seed: int,
    importance_weight: float,
    mean: np.ndarray | None,
) -> np.ndarray:
    """Spend what the groups left of their shares: together it may suffice for more candidates."""
    rest = np.setdiff1d(np.flatnonzero(pool.tokens <= left), selected)
    if not len(rest):
        return selected
    more = rest[choose(pool.take(rest), method, left, seed, importance_weight, False, mean)]
    return np.concatenate([selected, more])


def k_center(pool: Pool, budget: int) -> np.ndarray:
    """Select the farthest candidate first (Gonzalez 1985), starting with the one nearest to the mean.

    If all costs are equal, the greatest distance of any candidate to the selection is at most twice the best possible.
    """
    mean = pool.embeddings.T @ (pool.mass / pool.mass.sum())
    nearest = np.full(len(pool), -np.inf, dtype=np.float32)
    selected: list[int] = []
    free = pool.tokens <= budget
    index, used = int(np.argmax(np.where(free, pool.embeddings @ mean, -np.inf))), 0
    while free.any():
        selected.append(index)
        used += int(pool.tokens[index])
        free[index] = False
        free &= pool.tokens <= budget - used
        np.maximum(nearest, pool.embeddings @ pool.embeddings[index], out=nearest)
        index = int(np.argmin(np.where(free, nearest, np.inf)))
    return np.array(selected, dtype=int)


def herding(pool: Pool, budget: int, mean: np.ndarray | None) -> np.ndarray:
    """Greedily keep the mean of the selection close to the mean of all (Welling 2009, as in iCaRL, Rebuffi 2017)."""
    target = pool.embeddings.T @ (pool.mass / pool.mass.sum()) if mean is None else mean
    toward = pool.embeddings @ target.astype(np.float32)
    so_far = np.zeros(len(pool), dtype=np.float32)
    selected: list[int] = []
    free, used = pool.tokens <= budget, 0
    while free.any():
        # the next mean is closest to the target where its product with it, less half its own square, is greatest
        score = (len(selected) + 1) * toward - so_far
        index = int(np.argmax(np.where(free, score, -np.inf)))
        selected.append(index)
        used += int(pool.tokens[index])
        free[index] = False
        free &= pool.tokens <= budget - used
        so_far += pool.embeddings @ pool.embeddings[index]
    return np.array(selected, dtype=int)


@dataclass(frozen=True)
class Objective:
    """F(S) = coverage(S) + weight * reward(S), monotone and submodular (Lin and Bilmes 2011).

    coverage(S) is the mean over clients, weighted by mass, of the greatest similarity to any member of S, at least zero
    (facility location). reward(S) is the sum over groups of sqrt(importance of the selected in the group), divided by
    that sum for the most important candidates under the budget. The square root diminishes the reward within a group,
    which spreads importance over traits and topics.
    """

    pool: Pool
    weight: float
    scale: float

    def reward(self, chosen: np.ndarray) -> float:
        if not self.weight or not len(chosen):
            return 0.0
        sums = np.bincount(self.pool.groups[chosen], weights=self.pool.importance[chosen])
        return self.weight * float(np.sqrt(sums).sum()) / self.scale

    def coverage(self, chosen: np.ndarray) -> float:
        _, nearest = assign(self.pool.embeddings, self.pool.embeddings[chosen])
        return float(self.pool.mass @ nearest / self.pool.mass.sum())

    def value(self, chosen: np.ndarray) -> float:
        return self.coverage(chosen) + self.reward(chosen) if len(chosen) else 0.0


def objective(pool: Pool, budget: int, importance_weight: float) -> Objective:
    """The pool's objective, with its groups renumbered from 0 and its importance clipped at 0."""
    groups = np.unique(pool.groups, return_inverse=True)[1].ravel()
    pool = replace(pool, groups=groups, importance=np.maximum(pool.importance, 0.0))
    plain = Objective(pool, 1.0, 1.0)
    best = plain.reward(_fill(pool, np.argsort(-pool.importance, kind="stable"), budget, False))
    return Objective(pool, importance_weight if best > 0 else 0.0, best or 1.0)


def submodular(pool: Pool, budget: int, seed: int, importance_weight: float) -> np.ndarray:
    """Maximise the objective under a token budget.

    Lazy greedy selection (Minoux 1978; by gain per token and by gain alone, the better of the two: Leskovec et al.
    2007) on a sample of candidates and clients, repeated on the selection and new samples. Then all n are assigned to
    the selected candidate that covers them, and each of those is exchanged for the best of its cluster (k-medoids by
    alternation, Park and Jun 2009) as long as that raises the objective. With unit vectors the sum of similarities to a
    cluster is a product with its sum, so a round costs O(n * selected * d). With up to CANDIDATES candidates this is
    greedy selection from all of them, then refinement.
    """
    whole = objective(pool, budget, importance_weight)
    pool = whole.pool
    fitting = np.flatnonzero(pool.tokens <= budget)
    if not len(fitting):
        return np.array([], dtype=int)
    rng = np.random.default_rng(seed)
    selected = np.array([], dtype=int)
    for _ in range(min(DRAWS, -(-len(fitting) // CANDIDATES))):
        sampled = _sample(fitting, CANDIDATES - len(selected), rng)
        clients = _sample(np.arange(len(pool)), CLIENTS, rng)
        selected = _best_of(whole, np.union1d(selected, sampled), clients, budget, selected)
    return _refine(whole, selected, budget)


def _best_of(
    whole: Objective, candidates: np.ndarray, clients: np.ndarray, budget: int, before: np.ndarray
) -> np.ndarray:
    """The best by the objective: greedy by gain, greedy by gain per token, or the selection before."""
    pool = whole.pool
    similarity = pool.embeddings[candidates] @ pool.embeddings[clients].T
    np.maximum(similarity, 0, out=similarity)
    mass = (pool.mass[clients] / pool.mass[clients].sum()).astype(np.float32)
    selections = [before, candidates[_greedy(whole, candidates, similarity, mass, budget, per_token=False)]]
    if len(np.unique(pool.tokens[candidates])) > 1:
        selections.append(candidates[_greedy(whole, candidates, similarity, mass, budget, per_token=True)])
    return max(selections, key=whole.value)


def _sample(index: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return index if len(index) <= n else np.sort(rng.choice(index, n, replace=False))


def _greedy(
    whole: Objective, candidates: np.ndarray, similarity: np.ndarray, mass: np.ndarray, budget: int, per_token: bool
) -> np.ndarray:
    """Places in `candidates`, in the order of selection. `similarity` is (candidates, clients), at least 0."""
    pool = whole.pool.take(candidates)
    cost = pool.tokens if per_token else np.ones(len(pool))
    covered = np.zeros(similarity.shape[1], dtype=np.float32)
    sums = np.zeros(pool.groups.max() + 1)

    def gain(place: int) -> float:
        extra = float(np.maximum(similarity[place] - covered, 0) @ mass)
        group = pool.groups[place]
        reward = np.sqrt(sums[group] + pool.importance[place]) - np.sqrt(sums[group])
        return (extra + whole.weight * reward / whole.scale) / cost[place]

    first = similarity @ mass + whole.weight * np.sqrt(pool.importance) / whole.scale
    heap = [(-value, place) for place, value in enumerate((first / cost).tolist())]
    heapq.heapify(heap)
    selected, used = [], 0
    while heap:
        _, place = heapq.heappop(heap)
        if used + pool.tokens[place] > budget:
            continue
        now = gain(place)
        if heap and now < -heap[0][0]:  # another may be better now, since gains only shrink
            heapq.heappush(heap, (-now, place))
            continue
        selected.append(place)
        used += int(pool.tokens[place])
        np.maximum(covered, similarity[place], out=covered)
        sums[pool.groups[place]] += pool.importance[place]
    return np.array(selected, dtype=int)


def assign(embeddings: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of (n, d): the index of the most similar row of (k, d), and that similarity, at least 0."""
    places = np.empty(len(embeddings), dtype=np.int32)
    nearest = np.empty(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), BLOCK):
        block = embeddings[start : start + BLOCK] @ centres.T
        places[start : start + BLOCK] = best = block.argmax(1)
        nearest[start : start + BLOCK] = np.take_along_axis(block, best[:, None], 1)[:, 0]
    return places, np.maximum(nearest, 0)


def _refine(whole: Objective, selected: np.ndarray, budget: int) -> np.ndarray:
    """Repeatedly exchange each selected candidate for the best of its cluster. The objective never decreases."""
    pool, best = whole.pool, whole.value(selected)
    for _ in range(ROUNDS):
        exchanged = _exchange(whole, selected, budget - int(pool.tokens[selected].sum()))
        value = whole.value(exchanged)
        if value <= best * (1 + 1e-4):
            return exchanged if value > best else selected
        selected, best = exchanged, value
    return selected


def _exchange(whole: Objective, selected: np.ndarray, slack: int) -> np.ndarray:
    pool, selected = whole.pool, selected.copy()
    places, nearest = assign(pool.embeddings, pool.embeddings[selected])
    places[selected] = np.arange(len(selected))  # equal embeddings: each stays in its own cluster
    weight = np.where(nearest > 0, pool.mass, 0).astype(np.float32)
    order = np.argsort(places, kind="stable")
    bounds = np.searchsorted(places[order], np.arange(len(selected) + 1))
    sums = np.bincount(pool.groups[selected], weights=pool.importance[selected], minlength=pool.groups.max() + 1)
    total = float(pool.mass.sum())
    for place, old in enumerate(selected):
        inside = order[bounds[place] : bounds[place + 1]]
        cluster = pool.embeddings[inside]
        score = cluster @ (weight[inside] @ cluster) / total
        if whole.weight:
            without = sums.copy()
            without[pool.groups[old]] -= pool.importance[old]
            rest = np.maximum(without[pool.groups[inside]], 0)
            score = score + whole.weight * (np.sqrt(rest + pool.importance[inside]) - np.sqrt(rest)) / whole.scale
        fits = pool.tokens[inside] <= pool.tokens[old] + slack
        new = inside[np.argmax(np.where(fits, score, -np.inf))]
        if score[inside == new][0] > score[inside == old][0]:
            slack -= int(pool.tokens[new] - pool.tokens[old])
            sums[pool.groups[old]] -= pool.importance[old]
            sums[pool.groups[new]] += pool.importance[new]
            selected[place] = new
    return selected
