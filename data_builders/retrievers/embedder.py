"""A loaded sentence-transformers model: texts in, vectors out, the same whatever the neighbours. Knows no index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_builders.errors import RagFtError

_NO_LIMIT = 10**9  # tokenizers without a limit give 1e30


@dataclass(frozen=True)
class Embedder:
    """A loaded model.

    Attributes:
        model: a `SentenceTransformer`.
        query_prompt: put before every query.
        passage_prompt: put before every passage.
        normalize: whether vectors get length 1.
        batch_size: passages embedded at once.
        max_length: tokens of a passage that are read; None is the model's own limit.
    """

    model: Any
    query_prompt: str
    passage_prompt: str
    normalize: bool
    batch_size: int
    max_length: int | None

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    def passages(self, texts: Sequence[str], advance: Callable[[int], None]) -> np.ndarray[Any, Any]:
        """Embed passages, longest first: batches of like length hardly need padding. Rows come in the order of `texts`.

        `advance` is told how many more are done. The same texts give the same bytes on the same machine and number of
        threads; a passage's last bits depend on the others of its batch.
        """
        own, vectors = self.model.max_seq_length, np.zeros((len(texts), self.dimension), np.float32)
        self.model.max_seq_length = self.max_length or own
        try:
            order = np.argsort(-self._lengths(texts, self.passage_prompt), kind="stable")
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                vectors[batch] = self._encode(self.model.encode_document, texts, batch, self.passage_prompt)
                advance(len(batch))
        finally:
            self.model.max_seq_length = own
        return vectors

    def queries(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Embed queries, those of one length at a time: without padding, no query's bits depend on its neighbours.

        That holds on a CPU; a GPU may choose another kernel for another number of rows and differ in the last bits.
        """
        vectors, lengths = np.zeros((len(texts), self.dimension), np.float32), self._lengths(texts, self.query_prompt)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            for start in range(0, len(alike), 4 * self.batch_size):  # queries are short
                batch = alike[start : start + 4 * self.batch_size]
                vectors[batch] = self._encode(self.model.encode_query, texts, batch, self.query_prompt)
        return vectors

    def _encode(
        self, encode: Callable[..., Any], texts: Sequence[str], rows: np.ndarray[Any, Any], prompt: str
    ) -> np.ndarray[Any, Any]:
        import torch

        try:
            vectors = encode(
                [texts[row] for row in rows],
                prompt=prompt,
                batch_size=len(rows),
                normalize_embeddings=self.normalize,
                show_progress_bar=False,
            )
        except torch.OutOfMemoryError as error:
            raise RagFtError(
                f"data.retrievers (kind: dense): {len(rows)} texts at once do not fit the GPU's memory. "
                f"Set batch_size below {len(rows)}, or max_length below {self.max_length or self.model.max_seq_length}."
            ) from error
        if not np.isfinite(vectors).all():
            raise RagFtError(
                "data.retrievers (kind: dense): the model gives vectors that are not numbers. "
                "Its weights are broken or its type overflows: choose another model, or set device: cpu."
            )
        return np.asarray(vectors, np.float32)

    def _lengths(self, texts: Sequence[str], prompt: str) -> np.ndarray[Any, Any]:
        """Return how many tokens of each text the model will see; letters where the tokenizer is of another kind."""
        from transformers import PreTrainedTokenizerBase

        tokenizer = self.model.tokenizer
        if not texts or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return np.array([len(text) for text in texts], np.int64)
        cut = tokenizer.model_max_length is not None and tokenizer.model_max_length < _NO_LIMIT
        ids = tokenizer([prompt + text for text in texts], truncation=cut, return_attention_mask=False)["input_ids"]
        return np.array([len(row) for row in ids], np.int64)
