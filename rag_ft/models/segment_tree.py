"""Several continuations of one beginning in one sequence: who may attend to whom, and at which position.

A sequence is laid out as segments. A segment continues its parent; it sees its ancestors and, causally, itself, and
nothing else. Its positions go on from its parent's last. So every path from the root is computed exactly as if it
were alone in its own row. Shared contexts in training and prefix-shared sweeps in evaluation are both such trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_ft.prompting.encode import Ids

if TYPE_CHECKING:
    import torch

ROOT = -1


@dataclass
class SegmentTree:
    """Segments in the order laid out; a parent stands before its children.

    Attributes:
        ids: token ids of each segment.
        parents: index of the segment each one continues, or ROOT.
        starts: position (not index) of each segment's first token.
    """

    ids: list[Ids] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    _children: dict[tuple[int, Ids], int] = field(default_factory=dict)

    def add(self, ids: Ids, parent: int) -> int:
        """Add a segment below `parent`, even if an equal one is there; return its index."""
        self.starts.append(0 if parent == ROOT else self.starts[parent] + len(self.ids[parent]))
        self.ids.append(ids)
        self.parents.append(parent)
        return len(self.ids) - 1

    def add_path(self, segments: Sequence[Ids]) -> int:
        """Add a whole prompt, reusing segments that are there already; return the index of its last segment."""
        node = ROOT
        for ids in segments:
            found = self._children.get((node, ids))
            if found is None:
                found = self._children[(node, ids)] = self.add(ids, node)
            node = found
        return node

    def __len__(self) -> int:
        return sum(map(len, self.ids))

    def tokens(self) -> list[int]:
        """All token ids in the order laid out."""
        return [token for ids in self.ids for token in ids]

    def positions(self) -> list[int]:
        """The position of each token on its path from the root."""
        return [start + i for start, ids in zip(self.starts, self.ids, strict=True) for i in range(len(ids))]

    def segments(self) -> list[int]:
        """The segment index of each token."""
        return [index for index, ids in enumerate(self.ids) for _ in ids]


def allows_trees(config: Any, longest: int) -> bool:
    """Tell whether a model can keep the paths of a tree of `longest` tokens apart by a mask.

    Not with recurrent layers, not with an attention window shorter than the tree, not with flash attention, which
    takes no mask.
    """
    if "flash" in (getattr(config, "_attn_implementation", None) or ""):
        return False
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds <= {"full_attention"} and not getattr(text, "use_sliding_window", getattr(text, "sliding_window", None)):
        return True
    window = getattr(text, "sliding_window", None)
    return kinds <= {"full_attention", "sliding_attention"} and longest < int(window or 0)


def allows_joined_rows(config: Any, longest: int) -> bool:
    """Tell whether a model can keep ordinary rows apart that are laid end to end in a sequence of `longest` tokens.

    As `allows_trees`; but flash attention can, which is told where each row begins.
    """
    if "flash" not in (getattr(config, "_attn_implementation", None) or ""):
        return allows_trees(config, longest)
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    return kinds <= {"full_attention", "sliding_attention"}


def ancestor_matrix(parents: Sequence[int]) -> torch.Tensor:
    """Return a bool matrix [segments, segments]: row i is True at i's ancestors and at i itself."""
    import torch

    matrix = torch.zeros(len(parents), len(parents), dtype=torch.bool)
    for index, parent in enumerate(parents):
        if parent != ROOT:
            matrix[index] = matrix[parent]
        matrix[index, index] = True
    return matrix


def tree_mask(segments: torch.Tensor, parents: Sequence[int]) -> torch.Tensor:
    """Return who attends to whom, bool [tokens, tokens], for the tokens' segment indices `segments` [tokens]."""
    import torch

    mask = ancestor_matrix(parents).to(segments.device)[segments][:, segments]
    causal = torch.ones(mask.shape, dtype=torch.bool, device=mask.device).tril()
    return mask & causal
