"""What a recipe may say about a server and what it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from data_builders.settings import Settings


class EndpointSettings(Settings):
    """A server that speaks the OpenAI protocol: vLLM, Ollama, llama.cpp, `transformers serve`, or a hosted one."""

    base_url: str
    """Where it listens, for example http://127.0.0.1:8000/v1."""
    model: str
    """The model's name on that server."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server without one needs none."""
    concurrency: Annotated[int, Field(ge=1)] = 8
    """Calls under way at once."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds a try may take, from the connection to the last letter; what fails in passing is tried again."""
    input_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a million prompt tokens, for the cost per answer; in `training` tokens of this recipe's tokenizer."""
    output_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens written."""


def secret_in_address(settings: EndpointSettings) -> str | None:
    """Return what to change where the address holds what may be a key: addresses stand in recipes, files and errors.

    Raises:
        ValueError: it is no address.
    """
    parts = urlsplit(settings.base_url)
    if parts.username is None and not parts.query and not parts.fragment:
        return None
    return (
        "holds a user, a password or fields behind a question mark. Give the address alone, and the key in the "
        f"environment variable {settings.api_key_env}."
    )


class BudgetSettings(Settings):
    """What one run of a job may use up. It stops cleanly before it would go beyond; the next run goes on there."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens read and written, together, as the server counts them; null sets no limit."""
    money: Annotated[float, Field(gt=0)] | None = None
    """By the endpoint's prices, in their currency; null sets no limit."""


class TeacherSettings(EndpointSettings):
    """A server that writes labels or questions."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 writes what is likeliest."""
    max_tokens: Annotated[int, Field(ge=16)] = 1024
    """Longest answer."""
    structured: Literal["auto", "json_schema", "json_object", "off"] = "auto"
    """How the server is made to write JSON: by a schema, as any JSON, or by asking; `auto` takes the first of these
    that it accepts."""
    extra_body: dict[str, Any] = {}
    """Further fields of each request, for what a server knows beyond the protocol."""
    budget: BudgetSettings = BudgetSettings()
    """What it may cost."""
