"""Fine-tune the generator of a RAG system so that it stays right as the number of retrieved passages grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_ft.generator import load_generator as load_generator

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: `import rag_ft` itself loads nothing."""
    if name != "load_generator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rag_ft.generator import load_generator

    return load_generator
