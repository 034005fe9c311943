"""Whether weights are asked as they were trained. A contract may come from anywhere: it is checked, not trusted."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import ValidationError

from data_builders.errors import RagFtError
from rag_ft.generator.find import Found
from rag_ft.prompting.contract import FILE, PromptContract, broken_hash, contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings, Style

_ALLOW = "allow_prompt_mismatch=True"


def settings_of(reference: str, contract: PromptContract | None, style: Style | None) -> PromptSettings:
    """Return how prompts are rendered: as the contract has it, the defaults without one, in another style if told.

    Raises:
        RagFtError: the contract says what no setting is, or there is no such style.
    """
    told = dict(contract.settings if contract else {})
    try:
        # as JSON, as it was written
        return PromptSettings.model_validate_json(json.dumps(told | ({} if style is None else {"style": style})))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if name == "style" and style is not None:
            raise RagFtError(f"style={style!r}: no such style. Give answer, reasoning or self_reasoning.") from error
        raise RagFtError(
            f"{reference}: {FILE} has settings.{name}, which this version of rag-ft does not know ({first['msg']}). "
            "Install the version it was trained with, or fetch it again."
        ) from error


def keep_contract(reference: str, found: Found, encoder: Encoder, *, allowed: bool) -> None:
    """Refuse to ask otherwise than in training. Whole weights without a contract were not trained here, so they pass.

    Raises:
        RagFtError: an adapter has no contract, or one is broken, and that is not `allowed`.
    """
    if allowed:
        return
    if found.contract is None:
        if found.adapter is not None:
            raise RagFtError(
                f"{reference}: the adapter has no {FILE}, so nobody knows how it was asked in training. Give "
                f"{_ALLOW} to ask it with the default prompt."
            )
        return
    if name := broken_hash(asdict(found.contract), contract_of(encoder, found.contract.chat_template_kwargs)):
        raise RagFtError(_broken(reference, name, found.contract, encoder.settings))


def keep_prompt(reference: str, contract: PromptContract, settings: PromptSettings, *, allowed: bool) -> None:
    """Do the same for a server, which writes the chat template itself.

    Raises:
        RagFtError: the contract is broken.
    """
    known = {contract.prompt_hash, *contract.prompt_hashes.values()}
    if not allowed and prompt_hash(settings) not in known:
        raise RagFtError(_broken(reference, "prompt_hash", contract, settings))


def _broken(reference: str, name: str, contract: PromptContract, settings: PromptSettings) -> str:
    trained = [*contract.prompt_hashes] or [str(contract.settings.get("style"))]
    if name == "prompt_hash" and settings.style not in trained:
        return (
            f"{reference} was trained in the style {' and '.join(trained)}, not {settings.style}. Leave style out, or "
            f"give {_ALLOW}."
        )
    what = "our words" if name == "prompt_hash" else "its chat template"
    return (
        f"{reference} was trained with another prompt than this version of rag-ft writes: {what} changed since ({name} "
        f"in {FILE}). Install the version it was trained with, or give {_ALLOW}."
    )
