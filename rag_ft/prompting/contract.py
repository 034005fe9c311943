"""The prompt contract that travels with an adapter, so that it is asked the way it was trained."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash, write_json
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import prompt_hash

FILE = "prompt.json"


@dataclass(frozen=True)
class PromptContract:
    """Hashes of our templates and of what the chat template writes around them, and the settings to render with."""

    prompt_hash: str
    chat_template_hash: str
    settings: dict[str, Any]
    chat_template_kwargs: dict[str, Any]
    system: str

    def write(self, folder: Path) -> None:
        """Write prompt.json into an adapter folder."""
        write_json(folder / FILE, asdict(self))


def contract_of(encoder: Encoder, chat_template_kwargs: dict[str, Any]) -> PromptContract:
    """Return the contract that an encoder keeps."""
    return PromptContract(
        prompt_hash=prompt_hash(encoder.settings),
        chat_template_hash=content_hash(asdict(encoder.frame)),
        settings=encoder.settings.model_dump(mode="json"),
        chat_template_kwargs=chat_template_kwargs,
        system=encoder.system_text(),
    )


def check_contract(folder: Path, now: PromptContract) -> None:
    """Compare an adapter's contract with the one it is about to be asked under.

    Raises:
        RagFtError: the adapter has no contract, or another one.
    """
    try:
        trained = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RagFtError(
            f"{folder / FILE} is missing or damaged, so nobody knows how the adapter was asked in training. "
            "Train again, or set evaluation.allow_prompt_mismatch=true."
        ) from error
    for field in ("prompt_hash", "chat_template_hash"):
        if trained.get(field) != getattr(now, field):
            raise RagFtError(
                f"the adapter in {folder} was trained with {field} {trained.get(field)}, this recipe and version of "
                f"rag-ft write {getattr(now, field)}. Set model.prompt as in {folder / FILE}, train again, or set "
                "evaluation.allow_prompt_mismatch=true."
            )
