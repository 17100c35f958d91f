"""Text embeddings from the base's token embeddings: no second model, no forward pass.

A text is the mean of its tokens' rows, weighted by log(1 + token id), less the directions that all texts share. A
byte-pair vocabulary is in the order of merges, so a token's id stands for the rank of its frequency (the Zipf
weighting of model2vec). By the intent of the nearest neighbour on 1,500 questions of banking77, SmolLM2-135M: .65,
against .65 for the best of its 30 layers (with the same directions taken out) and .66 for tf-idf of character n-grams.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SHARED_DIRECTIONS = 3


class StaticEmbedding:
    """An embedding that the base alone determines: a text's vector does not depend on any other text."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        rows = model.get_input_embeddings().weight.detach().float()
        rank = torch.arange(len(rows), device=rows.device, dtype=torch.float32)
        rows = rows * torch.log1p(rank)[:, None]
        frequency = 1 / (rank + 100)  # Zipf's law, Mandelbrot's form
        frequency /= frequency.sum()
        mean = frequency @ rows
        centred = (rows - mean) * frequency.sqrt()[:, None]
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        shared = vectors[:, -SHARED_DIRECTIONS:]
        rows = rows - mean
        self._rows = (rows - (rows @ shared) @ shared.T).cpu().numpy()

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(n, hidden size) float32 of unit length; zeros for a text without tokens."""
        vectors = np.zeros((len(texts), self._rows.shape[1]), dtype=np.float32)
        if not texts:
            return vectors
        for index, ids in enumerate(self._tokenizer(texts, add_special_tokens=False)["input_ids"]):
            if ids:
                vectors[index] = self._rows[ids].mean(0)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(length > 0, length, 1)
