"""The prompt contract that travels with an adapter, so that it is asked the way it was trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash, write_json
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import Style

FILE = "prompt.json"


@dataclass(frozen=True)
class PromptContract:
    """Hashes of our templates and of what the chat template writes around them, and the settings to render with.

    `prompt_hashes` has the hash of every style the adapter was trained to write, the one of `settings` among them.
    """

    prompt_hash: str
    chat_template_hash: str
    settings: dict[str, Any]
    chat_template_kwargs: dict[str, Any]
    system: str
    prompt_hashes: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write prompt.json into an adapter folder."""
        write_json(folder / FILE, asdict(self))


def contract_of(encoder: Encoder, chat_template_kwargs: dict[str, Any], styles: Sequence[Style] = ()) -> PromptContract:
    """Return the contract that an encoder keeps; `styles` are further ones that rows were trained in."""
    return PromptContract(
        prompt_hash=prompt_hash(encoder.settings),
        chat_template_hash=content_hash(asdict(encoder.frame)),
        settings=encoder.settings.model_dump(mode="json"),
        chat_template_kwargs=chat_template_kwargs,
        system=encoder.system_text(),
        prompt_hashes={
            style: prompt_hash(encoder.styled(style).settings) for style in (encoder.settings.style, *styles)
        },
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
    for name in ("prompt_hash", "chat_template_hash"):
        if getattr(now, name) not in _trained_with(trained, name):
            raise RagFtError(
                f"the adapter in {folder} was trained with {name} {trained.get(name)}, this recipe and version of "
                f"rag-ft write {getattr(now, name)}. Set model.prompt as in {folder / FILE}, train again, or set "
                "evaluation.allow_prompt_mismatch=true."
            )


def _trained_with(trained: dict[str, Any], name: str) -> list[str]:
    """Return the hashes an adapter may be asked with; contracts written before hybrid training list one."""
    several = trained.get(f"{name}es")
    return [trained.get(name, ""), *(several.values() if isinstance(several, dict) else ())]
