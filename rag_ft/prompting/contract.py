"""The prompt contract that travels with an adapter, so that it is asked the way it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash, write_json
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.neutralise import control_tokens
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import Style

FILE = "prompt.json"


@dataclass(frozen=True)
class PromptContract:
    """Hashes of our templates and of what the chat template writes around them, and the settings to render with.

    Attributes:
        prompt_hash: of the templates under `settings`.
        chat_template_hash: of what the chat template writes around them.
        settings: `PromptSettings`, as JSON.
        chat_template_kwargs: extra variables of the chat template.
        system: the instruction of a prompt with passages.
        prompt_hashes: the hash of every style the adapter was trained to write, the one of `settings` among them.
        chat: what writing messages for a server takes of the tokenizer: `system_role`, `between` (system text and
            question where there is no system role) and `control_tokens`. Empty in older adapters.
        model: the weights below an adapter, for another machine (rag_ft/models/tuned.py). Empty in older adapters.
    """

    prompt_hash: str
    chat_template_hash: str
    settings: dict[str, Any]
    chat_template_kwargs: dict[str, Any]
    system: str
    prompt_hashes: dict[str, str] = field(default_factory=dict)
    chat: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

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
        chat={
            "system_role": encoder.frame.system_role,
            "between": encoder.frame.between,
            "control_tokens": sorted(control_tokens(encoder.tokenizer)),
        },
    )


def read_contract(folder: Path) -> PromptContract | None:
    """Read the contract beside weights, which may come from anywhere; None where there is none.

    Raises:
        RagFtError: it is damaged.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        found = None
    known = {one.name: found[one.name] for one in fields(PromptContract) if one.name in found} if _is_map(found) else {}
    texts = [known.get(name) for name in ("prompt_hash", "chat_template_hash", "system")]
    rest = [value for name, value in known.items() if name not in ("prompt_hash", "chat_template_hash", "system")]
    if "settings" not in known or not all(isinstance(one, str) for one in texts) or not all(map(_is_map, rest)):
        raise RagFtError(f"{path} is damaged: it does not say how the weights beside it are asked. Fetch it again.")
    return PromptContract(**{"chat_template_kwargs": {}, **known})


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


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
    if (name := broken_hash(trained, now)) is not None:
        raise RagFtError(
            f"the adapter in {folder} was trained with {name} {trained.get(name)}, this recipe and version of "
            f"rag-ft write {getattr(now, name)}. Set model.prompt as in {folder / FILE}, train again, or set "
            "evaluation.allow_prompt_mismatch=true."
        )


def broken_hash(
    trained: Mapping[str, Any], now: PromptContract, names: Sequence[str] = ("prompt_hash", "chat_template_hash")
) -> str | None:
    """Return the first of the hashes of an adapter's contract that the one it is asked under lacks; None if none."""
    return next((name for name in names if getattr(now, name) not in _trained_with(trained, name)), None)


def _trained_with(trained: Mapping[str, Any], name: str) -> list[str]:
    """Return the hashes an adapter may be asked with; contracts written before hybrid training list one."""
    several = trained.get(f"{name}es")
    return [trained.get(name, ""), *(several.values() if isinstance(several, dict) else ())]
