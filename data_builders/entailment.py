"""A model for natural language inference from the Hub or a folder: does a premise entail a hypothesis? Scores nothing.

Two kinds are known. A classifier of sequence pairs with a class named like "entailment" (DeBERTa and the like, trained
on MNLI, FEVER, ANLI) decides by its likeliest class. A T5 model (`google/t5_xxl_true_nli_mixture`, the one of ALCE and
TRUE, arXiv 2204.04991) is asked `premise: ... hypothesis: ...` and says 1. Their verdicts differ, so compare only
numbers from the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading
from data_builders.progress import quiet_transformers

Pair = tuple[str, str]
"""A premise and a hypothesis."""
Entails = Callable[[Sequence[Pair]], Sequence[bool]]
"""Tells of each pair whether the premise entails the hypothesis."""


@dataclass
class Entailment:
    """Tells of pairs whether the premise entails the hypothesis.

    Attributes:
        decide: takes a tokenised batch; one bool a pair.
        longest: tokens of a pair the model can read; None where it has no limit.
        shortened: pairs so far that were longer and lost their ends.
    """

    tokenizer: Any
    device: str
    decide: Callable[[Any], list[bool]]
    written: Callable[[Pair], tuple[str, ...]]
    longest: int | None
    batch_size: int = 16
    shortened: int = field(default=0, init=False)

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """Judge pairs, in batches of similar length."""
        texts = [self.written(pair) for pair in pairs]
        lengths = [len(self._ids([text])["input_ids"][0]) for text in texts]
        self.shortened += sum(self.longest is not None and length > self.longest for length in lengths)
        order = sorted(range(len(pairs)), key=lambda place: -lengths[place])
        found: dict[int, bool] = {}
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            cut = {"truncation": True, "max_length": self.longest} if self.longest else {}
            batch = self._ids([texts[place] for place in places], padding=True, return_tensors="pt", **cut)
            found.update(zip(places, self.decide(batch.to(self.device)), strict=True))
        return [found[place] for place in range(len(pairs))]

    def _ids(self, texts: Sequence[tuple[str, ...]], **options: Any) -> Any:
        return self.tokenizer(*(list(part) for part in zip(*texts, strict=True)), **options)


def load_entailment(reference: str, setting: str, device: str | None = None) -> Entailment:
    """Load a model for natural language inference.

    Args:
        reference: a folder or a Hub id, with safetensors; code from the Hub is not run.
        setting: the key of the recipe that names it, for messages.
        device: as torch calls it; None takes a GPU where there is one.

    Raises:
        RagFtError: transformers is not installed, the model cannot be loaded, or it is neither of the two kinds.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        raise RagFtError(
            f"{setting}={reference} needs torch and transformers, which are not installed: "
            f"pip install 'rag-ft[train]', or set {setting} to null."
        ) from error

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_transformers(), loading(reference, "configuration", setting):
        config = AutoConfig.from_pretrained(reference)
    with quiet_transformers(), loading(reference, "tokenizer", setting):
        tokenizer = AutoTokenizer.from_pretrained(reference)
    if getattr(config, "is_encoder_decoder", False):
        model = _load("AutoModelForSeq2SeqLM", reference, setting, device)
        return Entailment(tokenizer, device, _says_one(model, tokenizer), _asked, None)
    wanted = _entailment_class(reference, setting, config)
    model = _load("AutoModelForSequenceClassification", reference, setting, device)
    return Entailment(tokenizer, device, _classifies(model, wanted), tuple, _longest(tokenizer, config))


def _load(kind: str, reference: str, setting: str, device: str) -> Any:
    import torch
    import transformers

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with quiet_transformers(), loading(reference, "model", setting):
        model = getattr(transformers, kind).from_pretrained(reference, dtype=dtype, use_safetensors=True)
    return model.to(device).eval()


def _entailment_class(reference: str, setting: str, config: Any) -> int:
    """Return the index of the class that means entailment; `not_entailment` does not."""
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    found = [index for index, name in names.items() if name.lower().startswith("entail")]
    if len(found) != 1:
        raise RagFtError(
            f"{setting}={reference}: its classes are {', '.join(names.values()) or 'not named'}, so nobody can tell "
            f"which one is entailment. Set {setting} to a model for natural language inference."
        )
    return found[0]


def _longest(tokenizer: Any, config: Any) -> int | None:
    """Return the most tokens a classifier reads; RoBERTa keeps its first positions for padding."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and "roberta" in config.model_type:
        positions -= config.pad_token_id + 1
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit is not None and 0 < limit < 10**6]
    return min(limits, default=None)


def _classifies(model: Any, wanted: int) -> Callable[[Any], list[bool]]:
    import torch

    def decide(batch: Any) -> list[bool]:
        with torch.inference_mode():
            return (model(**batch).logits.argmax(-1) == wanted).tolist()

    return decide


def _asked(pair: Pair) -> tuple[str, ...]:
    return (f"premise: {pair[0]} hypothesis: {pair[1]}",)


def _says_one(model: Any, tokenizer: Any) -> Callable[[Any], list[bool]]:
    import torch

    def decide(batch: Any) -> list[bool]:
        taken = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            written = model.generate(**taken, max_new_tokens=10, do_sample=False)
        return [text.strip() == "1" for text in tokenizer.batch_decode(written, skip_special_tokens=True)]

    return decide
