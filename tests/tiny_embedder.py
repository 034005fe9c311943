"""A random BERT of two layers as a sentence-transformers model, for tests of dense retrieval."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = (
    "the town of aldo bexa cyra dunn was founded in 1801 1802 1803 1804 by berin flag is red blue green black who when"
)


def write_embedder(folder: Path, prompts: dict[str, str] | None = None) -> Path:
    """Save the model (32 dimensions, 64 positions, mean pooling) with safetensors weights; return `folder`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast

    base = folder / "base"
    base.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.:?"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    (base / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    BertTokenizerFast(str(base / "vocab.txt"), model_max_length=64).save_pretrained(base)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(set(vocabulary)), max_position_embeddings=64, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(base)
    model = SentenceTransformer(modules=[Transformer(str(base)), Pooling(32)], device="cpu", prompts=prompts or {})
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def foreign_code(model: Path) -> None:
    """Change a saved model into one whose first module is a class of its own."""
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["type"] = "own_code.Transformer"
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "own_code.py").write_text("raise SystemExit('foreign code was run')\n")
