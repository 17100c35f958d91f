"""One point of the scaling curve, as JSON on standard output: `python benchmarks/scale.py clustered 50000`."""

from __future__ import annotations

import heapq
import json
import resource
import sys
import time
from typing import Any

import numpy as np

from moltlm.data import selectors

K = 200


def measure(kind: str, n: int) -> dict[str, Any]:
    vectors = synthetic(kind, n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1048576
    rng = np.random.default_rng(1)
    ones = np.ones(n)
    pool = selectors.Pool(
        vectors, ones.astype(int), rng.random(n), rng.integers(0, 20, n), ones, np.arange(n), rng.random(n)
    )
    seconds, selected = {}, {}
    for method in ("facility_location", "combined", "k_center", "herding"):
        start = time.monotonic()
        selected[method] = selectors.choose(pool, method, K, 0)
        seconds[method] = round(time.monotonic() - start, 1)
    whole = selectors.objective(pool, K, 0.0)
    result: dict[str, Any] = {
        "kind": kind,
        "n": n,
        "seconds": seconds,
        "peak_gib_beyond_vectors": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1048576 - before, 2),
        "value": {method: round(whole.coverage(selected[method]), 4) for method in selected},
        "random": round(float(np.mean([whole.coverage(rng.choice(n, K, replace=False)) for _ in range(3)])), 4),
    }
    if n <= 50_000:
        start = time.monotonic()
        other = exact(vectors) if n <= 10_000 else stochastic(vectors)
        result["reference"] = "exact greedy" if n <= 10_000 else "stochastic greedy, all clients"
        result["reference_value"] = round(whole.coverage(other), 4)
        result["reference_seconds"] = round(time.monotonic() - start, 1)
        result["share_of_value"] = round(result["value"]["facility_location"] / result["reference_value"], 3)
        gain = result["value"]["facility_location"] - result["random"]
        result["share_of_gain"] = round(gain / (result["reference_value"] - result["random"]), 3)
    return result


def synthetic(kind: str, n: int) -> np.ndarray:
    """(n, 256) of unit length: 500 clusters of unequal size, or without any structure, the hardest case."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, 256), dtype=np.float32)
    if kind == "clustered":
        centres = rng.standard_normal((500, 256), dtype=np.float32)
        rows *= 1.5
        rows += centres[rng.choice(500, n, p=rng.dirichlet(np.full(500, 0.3)))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def exact(vectors: np.ndarray) -> np.ndarray:
    """Lazy greedy over all pairs."""
    similarity = np.maximum(vectors @ vectors.T, 0)
    covered, selected = np.zeros(len(vectors), dtype=np.float32), []
    heap = [(-gain, place) for place, gain in enumerate(similarity.sum(1).tolist())]
    heapq.heapify(heap)
    while len(selected) < K:
        _, place = heapq.heappop(heap)
        now = float(np.maximum(similarity[place] - covered, 0).sum())
        if heap and now < -heap[0][0]:
            heapq.heappush(heap, (-now, place))
            continue
        selected.append(place)
        np.maximum(covered, similarity[place], out=covered)
    return np.array(selected)


def stochastic(vectors: np.ndarray) -> np.ndarray:
    """Stochastic greedy (Mirzasoleiman et al. 2015, epsilon .01) with every vector as a client."""
    rng, covered, selected = np.random.default_rng(0), np.zeros(len(vectors), dtype=np.float32), []
    for _ in range(K):
        candidates = rng.choice(len(vectors), int(len(vectors) / K * np.log(100)), replace=False)
        gains = [np.maximum(vectors[part] @ vectors.T - covered, 0).sum(1) for part in np.array_split(candidates, 20)]
        selected.append(int(candidates[np.concatenate(gains).argmax()]))
        covered = np.maximum(covered, vectors[selected[-1]] @ vectors.T)
    return np.array(selected)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2])), indent=2))
