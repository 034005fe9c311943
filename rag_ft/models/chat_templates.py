"""Chat templates for models that come without one: two of ours, a file, or another model's. Renders no prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading
from data_builders.progress import quiet_transformers
from rag_ft.models.settings import OWN_TEMPLATES, ModelSettings
from rag_ft.prompting.frame import ChatFrame, chat_frame
from rag_ft.prompting.neutralise import control_tokens

# Turns between control tokens, as OpenAI's ChatML writes them.
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Words instead of control tokens; a reply ends as every text does that the model was pretrained on.
_PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}Request:\n{{ message['content'] }}\n\nReply:\n"
    "{% else %}{{ message['content'] }}{{ eos_token }}\n\n{% endif %}{% endfor %}"
)
TEMPLATES = dict(zip(OWN_TEMPLATES, (_CHATML, _PLAIN), strict=True))
_LIKE_A_TOKEN = re.compile(r"<\|[^|<>{}\s]+\|>|<(?:start|end)_of_turn>|\[/?INST\]")
_PLAIN_INSTEAD = "Set model.chat_template=plain, which needs no token of its own."


def choose_template(tokenizer: Any, settings: ModelSettings, revision: str | None) -> None:
    """Give the tokenizer the chat template that the recipe names, in place; nothing where it names none.

    The token that ends a reply becomes the tokenizer's end token, so that whoever loads it from the adapter's folder
    stops there. `revision` is the commit of a template on the Hub.

    Raises:
        RagFtError: there is no such template, or the tokenizer lacks a control token that it writes.
    """
    choice = settings.chat_template
    if choice is None:
        return
    if choice == "plain" and tokenizer.eos_token is None:
        raise RagFtError(
            "model.chat_template=plain: the tokenizer has no end token, so a reply could never end. Set model.weights "
            "to a model whose tokenizer names one."
        )
    template, tokens = _template(tokenizer, settings, revision)
    tokenizer.chat_template = template
    frame = _frame(tokenizer, settings)
    written = "".join((frame.before, frame.between, frame.tail, frame.lead, frame.end))
    for token in sorted({*_LIKE_A_TOKEN.findall(written), *(token for token in tokens if token in written)}):
        if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1:
            raise RagFtError(
                f"model.chat_template={choice}: it writes {token}, which is no token of this tokenizer, so the model "
                f"would read it letter by letter. {_PLAIN_INSTEAD}"
            )
    ends = [token for token in control_tokens(tokenizer) if token in frame.end]
    if not ends:
        raise RagFtError(
            f"model.chat_template={choice}: a reply ends with {frame.end!r}, which is no control token of this "
            f"tokenizer, so the model could never learn to stop. {_PLAIN_INSTEAD}"
        )
    tokenizer.eos_token = min(ends, key=frame.end.index)


def _template(tokenizer: Any, settings: ModelSettings, revision: str | None) -> tuple[str, frozenset[str]]:
    """Return a template and the control tokens of the tokenizer it was made for, as far as they are known."""
    choice = settings.chat_template or ""
    if choice in TEMPLATES:
        return _bos(tokenizer) + TEMPLATES[choice], frozenset()
    if not choice.endswith(".jinja"):
        return _template_of_model(choice, revision, trust=settings.trust_remote_code)
    try:
        return Path(choice).expanduser().read_text(encoding="utf-8"), frozenset()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RagFtError(f"model.chat_template={choice}: {reason}. Give the path of a Jinja template.") from error


def _frame(tokenizer: Any, settings: ModelSettings) -> ChatFrame:
    from jinja2 import TemplateError

    try:
        return chat_frame(tokenizer, settings.chat_template_kwargs)
    except TemplateError as error:
        raise RagFtError(
            f"model.chat_template={settings.chat_template}: Jinja cannot write a conversation with it ({error}). Mend "
            "it, or set chatml or plain."
        ) from error


def _bos(tokenizer: Any) -> str:
    """Return what a template of ours begins with: the token that the tokenizer itself puts in front of a text."""
    first = tokenizer("a")["input_ids"][:1]
    return "{{ bos_token }}" if first == [tokenizer.bos_token_id] else ""


def _template_of_model(reference: str, revision: str | None, *, trust: bool) -> tuple[str, frozenset[str]]:
    from transformers import AutoTokenizer

    folder = Path(reference).expanduser()
    location = str(folder) if folder.is_dir() else reference
    with quiet_transformers(), loading(reference, "tokenizer", "model.chat_template"):
        other = AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=trust)
    if not other.chat_template:
        raise RagFtError(
            f"model.chat_template={reference}: its tokenizer has no chat template. Name a model that has one, or set "
            "chatml or plain."
        )
    return other.get_chat_template(), control_tokens(other)
