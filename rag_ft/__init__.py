"""Fine-tune the generator of a RAG system so that it stays right as the number of retrieved passages grows."""

__version__ = "0.1.0"
