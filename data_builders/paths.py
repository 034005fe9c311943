"""Where a build puts its files. Reads and writes none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_builders.sources.rows import SPLITS

if TYPE_CHECKING:
    from data_builders.retrieval import SplitFiles

TRAINING_SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")


@dataclass(frozen=True)
class DataPaths:
    """The files a build leaves, by split. `contexts` and `labels` exist for train and validation.

    `replies` is what was said by whoever wrote the labels; it outlives every step.
    """

    raw: Path
    synthesis: Path
    passages: dict[str, Path]
    rankings: Path
    retrieval: Path
    questions: dict[str, Path]
    pools: dict[str, Path]
    hits: dict[str, Path]
    contexts: dict[str, Path]
    labels: dict[str, Path]
    replies: Path

    def found(self, retriever: str, split: str) -> Path:
        """Return the file of what one retriever found."""
        return self.retrieval / retriever / f"{split}.parquet"

    def asked(self, split: str) -> SplitFiles:
        """Return one split as retrieval sees it."""
        from data_builders.retrieval import SplitFiles

        return SplitFiles(split, self.searched(split), self.questions[split], self.rankings)

    def searched(self, split: str) -> tuple[Path, ...]:
        """Return the files of passages that the questions of a split search."""
        return self.passages["shared"], self.passages[split]


def data_paths(folder: Path) -> DataPaths:
    """Return where `build_data` puts its files below its folder."""
    return DataPaths(
        raw=folder / "source",
        synthesis=folder / "synthesis",
        passages={name: folder / f"clean/passages-{name}.arrow" for name in ("shared", *SPLITS)},
        rankings=folder / "clean/rankings.parquet",
        retrieval=folder / "retrieval",
        questions={split: folder / f"clean/questions-{split}.arrow" for split in SPLITS},
        pools={split: folder / f"pools/{split}.parquet" for split in SPLITS},
        hits={split: folder / f"pools/{split}.arrow" for split in SPLITS},
        contexts={split: folder / f"contexts/{split}.parquet" for split in TRAINING_SPLITS},
        labels={split: folder / f"labels/{split}.parquet" for split in TRAINING_SPLITS},
        replies=folder / "replies/labels.sqlite",
    )
