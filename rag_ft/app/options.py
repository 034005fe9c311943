"""Settings of a library from `key=value` on the command line, with all mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from data_builders.errors import RagFtError
from rag_ft.app.settings import LibrarySettings


def library_settings(given: Sequence[str]) -> LibrarySettings:
    """Return the settings that `key=value` texts ask for; of one key twice the last counts.

    Raises:
        RagFtError: there is no such key, or its value does not fit; one line for each mistake.
    """
    try:
        return LibrarySettings.model_validate_strings(dict(map(_parsed, given)), strict=False)
    except ValidationError as error:
        raise RagFtError("\n".join(map(_sentence, error.errors()))) from error


def _parsed(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RagFtError(f'"{text}" is no setting: write key=value, for example chunk_tokens=128.')
    return key.strip(), value


def _sentence(error: Mapping[str, Any]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, LibrarySettings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(LibrarySettings.model_fields)}."
        return f"{key}: there is no such setting of a library; {hint}"
    if error["type"] == "value_error":
        return f"{error['ctx']['error']}."
    return f"{key}={error['input']}: {error['msg'][0].lower()}{error['msg'][1:]}."
