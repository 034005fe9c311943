"""Reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009). Looks at ranks only; searches nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_builders.retrievers import Found


def reciprocal_rank_fusion(
    found: Mapping[str, Found], k: int = 60, weights: Mapping[str, float] | None = None
) -> Found:
    """Fuse what several retrievers found for one query: a passage scores the sum of weight / (k + rank).

    Ranks count from 1; who did not find a passage adds nothing to it. Equal scores are ordered by position.

    Args:
        found: retriever -> its ranking, without repeated passages.
        k: 60 in the paper; larger values make the first ranks matter less.
        weights: retriever -> weight, 1 where it is not named; 0 leaves a retriever out.

    Returns:
        Every passage that any retriever found.
    """
    shares = {name: 1.0 if weights is None else weights.get(name, 1.0) for name in found}
    lists = [(one.positions, shares[name]) for name, one in found.items() if shares[name]]
    positions = np.unique(np.concatenate([np.zeros(0, np.int32), *(ranked for ranked, _ in lists)]))
    terms = np.zeros((len(positions), len(lists)))
    for column, (ranked, share) in enumerate(lists):
        terms[np.searchsorted(positions, ranked), column] = share / (k + np.arange(1, len(ranked) + 1))
    # Sorted before they are added: passages with the same ranks from other retrievers get the very same sum.
    scores = np.sort(terms, axis=1).sum(axis=1)
    order = np.lexsort((positions, -scores))
    return Found(positions[order].astype(np.int32), scores[order].astype(np.float32))
