"""A tokenizer as GGUF has it: pieces, kinds, merges or scores, and by what rule llama.cpp cuts text. Writes no file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.export.gguf_model import WAY_OUT

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # as in SentencePiece
_KEPT = ("model", "pre", "tokens", "token_type", "merges", "scores", "add_space_prefix")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_PATTERNS = {
    "llama-bpe": rf"{_CONTRACTIONS}\p{{N}}{{1,3}}{_REST}",
    "qwen2": rf"{_CONTRACTIONS}\p{{N}}{_REST}",
    "tekken": rf"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_PROBE = (
    "It's 12345 o'CLOCK, THEY'LL say rock'Really; iPhone McDonald's.\n\n  Two  spaces\tand 3.14159\r\n[1] A/B/C//\n "
    "Über-große Ärzte, 2 000 000 €! 대한민국의 수도는 서울이다. 한국어 1234년 漢字かな交じり文 été ﬁn naïve "
    "http://x.y/z?q=1&r=2 ... ---\n\n\nQuestion: who?  \n"
)


@dataclass(frozen=True)
class GgufTokenizer:
    """What llama.cpp tokenises with.

    Attributes:
        model: `gpt2` for byte pairs, `llama` for SentencePiece.
        pre: how text is cut before merging.
        tokens: every piece in the order of ids.
        kinds: of each piece, as in SentencePiece.
        merges: of byte pairs, first first; empty for SentencePiece.
        scores: of pieces, the higher the sooner they are merged; empty for byte pairs.
        space_prefix: a space is put in front of a text.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False

    def fitted(self, size: int) -> GgufTokenizer:
        """Return the tokenizer with as many pieces as the model has embeddings, which llama.cpp insists on.

        Pieces that are added are never written; those left out have no embedding, so that nobody can ask with them.
        """
        more = range(len(self.tokens), size)
        scores = (*self.scores[:size], *(-1e4 for _ in more)) if self.scores else ()
        return replace(
            self,
            tokens=(*self.tokens[:size], *(f"[PAD{number}]" for number in more)),
            kinds=(*self.kinds[:size], *(_UNUSED for _ in more)),
            scores=scores,
        )


def read_tokenizer(tokenizer: Any) -> GgufTokenizer:
    """Read a tokenizer of transformers.

    Raises:
        RagFtError: llama.cpp would cut texts otherwise, or nobody here knows how.
    """
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] != "BPE":
        raise RagFtError(f"export gguf: a tokenizer of the kind {model['type']} is not written here. {WAY_OUT}")
    tokens, kinds = _pieces(tokenizer, model)
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    if not model.get("byte_fallback"):
        return GgufTokenizer("gpt2", _rule(tokenizer), tokens, kinds, merges=merges)
    plain = [
        token.replace("▁", " ") if kind == _USER_DEFINED else token for token, kind in zip(tokens, kinds, strict=True)
    ]
    scores = _scores(tokens, model["merges"])
    return GgufTokenizer("llama", "default", tuple(plain), kinds, scores=scores, space_prefix=_space_prefix(told))


def _pieces(tokenizer: Any, model: dict[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = {index: token for token, index in model["vocab"].items()}
    added = tokenizer.added_tokens_decoder
    names |= {index: token.content for index, token in added.items()}
    kinds = {index: _CONTROL if token.special else _USER_DEFINED for index, token in added.items()}
    if model.get("byte_fallback"):
        kinds |= {model["vocab"][f"<0x{byte:02X}>"]: _BYTE for byte in range(256)}
        kinds |= {model["vocab"][model["unk_token"]]: _UNKNOWN} if model.get("unk_token") else {}
    everything = range(max(names) + 1)  # ids may have holes
    tokens = tuple(names.get(index, f"[PAD{index}]") for index in everything)
    return tokens, tuple(kinds.get(index, _NORMAL if index in names else _UNUSED) for index in everything)


def _scores(tokens: Iterable[str], merges: Iterable[Any]) -> tuple[float, ...]:
    """Return a score for each piece so that SentencePiece merges in the order of the merges: the sooner, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    return tuple(-float(ranks[token]) if token in ranks else -1e6 for token in tokens)


def _space_prefix(told: dict[str, Any]) -> bool:
    """Tell whether a space is put in front of every text between control tokens, as llama.cpp can.

    Raises:
        RagFtError: it is put in front of the first alone, or where llama.cpp puts none.
    """
    steps = [step for one in (told["normalizer"], told["pre_tokenizer"]) for step in _steps(one)]
    prepends = any(step["type"] == "Prepend" for step in steps)
    spaces = {step.get("prepend_scheme", "always") for step in steps if step["type"] == "Metaspace"} - {"never"}
    if spaces:
        raise RagFtError(
            f"export gguf: a tokenizer that puts a space in front of a text ({', '.join(spaces)}) in its pre-tokenizer "
            f"is not written here. {WAY_OUT}"
        )
    return prepends


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    inner = part.get("normalizers") or part.get("pretokenizers")
    return [step for one in inner for step in _steps(one)] if inner else [part]


def _rule(tokenizer: Any) -> str:
    """Return llama.cpp's name of the rule by which a tokenizer cuts text before it merges, found by trying it.

    Raises:
        RagFtError: it is none of those known here.
    """
    cutter = tokenizer.backend_tokenizer.pre_tokenizer
    pieces = cutter.pre_tokenize_str(_PROBE) if cutter is not None else None
    found = next((name for name, rule in _rules().items() if rule.pre_tokenize_str(_PROBE) == pieces), None)
    if found is None:
        raise RagFtError(
            "export gguf: the tokenizer cuts text by a rule whose name in llama.cpp is not known here (known are "
            f"{', '.join(_rules())}). {WAY_OUT}"
        )
    return found


@cache
def _rules() -> dict[str, Any]:
    from tokenizers import Regex, pre_tokenizers

    def byte_level(*before: Any, regex: bool) -> Any:
        return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)])

    rules = {"gpt-2": byte_level(regex=True), "smollm": byte_level(pre_tokenizers.Digits(True), regex=True)}
    for name, pattern in _PATTERNS.items():
        rules[name] = byte_level(pre_tokenizers.Split(Regex(pattern), behavior="isolated"), regex=False)
    return rules


def tokenizer_of_gguf(reader: Any) -> GgufTokenizer:
    """Take the tokenizer of a GGUF file that the base weights came from, as it is.

    Args:
        reader: a `gguf.GGUFReader`.
    """
    found = {
        name: field.contents() for name in _KEPT if (field := reader.fields.get(f"tokenizer.ggml.{name}")) is not None
    }
    return GgufTokenizer(
        model=found["model"],
        pre=found.get("pre", "default"),
        tokens=tuple(found["tokens"]),
        kinds=tuple(found["token_type"]),
        merges=tuple(found.get("merges", ())),
        scores=tuple(found.get("scores", ())),
        space_prefix=bool(found.get("add_space_prefix", found["model"] == "llama")),
    )


def add_tokenizer(writer: Any, found: GgufTokenizer, tokenizer: Any, end: int, template: str) -> None:
    """Write a tokenizer, and how a conversation is written with it.

    llama.cpp is told to add no token of its own: the chat template writes every one there is to be, the first too.

    Args:
        writer: a `gguf.GGUFWriter`.
        found: pieces and rule.
        tokenizer: of transformers, for the ids of the tokens that stand for something.
        end: the token that ends a turn; generation stops there.
        template: the chat template.
    """
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(list(found.tokens))
    writer.add_token_types(list(found.kinds))
    if found.merges:
        writer.add_token_merges(list(found.merges))
    if found.scores:
        writer.add_token_scores(list(found.scores))
    for name in ("bos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{name}_token_id")) is not None and index < len(found.tokens):
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(found.space_prefix)
    writer.add_chat_template(template)
