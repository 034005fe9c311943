"""Normal forms: what makes two texts the same text. Near-duplicates are in questions.py."""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

_MARKS = {"Po", "Ps", "Pe", "Pi", "Pf"}  # Unicode's sentence marks, brackets and quotation marks
_MEANINGFUL = set("#%&*@/\\")  # "C" and "C#" are two questions


def normal_form(text: str) -> str:
    """Return a text in which letter case, compatibility forms (NFKC) and white space are evened out; no more."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def question_form(text: str) -> str:
    """Return `normal_form` without sentence marks around words; of a text of marks only, `normal_form` as it is."""
    plain = normal_form(text)
    words = (word if word.isalnum() else _stripped(word) for word in plain.split())
    return " ".join(word for word in words if word) or plain


def _stripped(word: str) -> str:
    low, high = 0, len(word)
    while low < high and _is_mark(word[low]):
        low += 1
    while low < high and _is_mark(word[high - 1]):
        high -= 1
    return word[low:high]


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign) in _MARKS and sign not in _MEANINGFUL


def digest(text: str, size: int) -> bytes:
    """Return `size` bytes of BLAKE2b, the same in every process."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def digest64(text: str) -> int:
    """Return 64 bits of BLAKE2b as an integer."""
    return int.from_bytes(digest(text, 8), "little")
