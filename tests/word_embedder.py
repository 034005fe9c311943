"""Embeds texts by the words in them, without a model: similar is what shares words. For tests of libraries."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DIMENSION = 512


class WordEmbedder:
    """Stands where `rag_ft.app.embedding.LibraryEmbedder` does; `asked` are the passages it embedded."""

    def __init__(self, identity: str = "words") -> None:
        self.identity = identity
        self.asked: list[str] = []

    def passages(self, texts: Sequence[str], before: Callable[[], None] = lambda: None) -> np.ndarray[Any, Any]:
        self.asked += texts
        return np.stack([self.question(text) for text in texts]) if texts else np.zeros((0, DIMENSION), np.float32)

    def question(self, text: str) -> np.ndarray[Any, Any]:
        vector = np.zeros(DIMENSION, np.float32)
        for word in re.findall(r"\w+", text.lower()):
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1
        return vector / max(float(np.linalg.norm(vector)), 1e-6)
