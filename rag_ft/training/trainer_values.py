"""Whether the values under `training.trainer` are what trl.SFTConfig takes. Their names are checked with the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from data_builders.errors import RagFtError


def check_trainer_values(values: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Any]) -> None:
    """Make sure that SFTConfig takes the values.

    Args:
        values: `training.trainer`.
        make: makes the configuration with these values in place of the recipe's.

    Raises:
        RagFtError: one value has another type, or is refused; the message names its field.
    """
    for name, value in values.items():
        _check_type(name, value)
    try:
        make(values)
    except RagFtError as error:
        guilty = next((name for name in values if _works_without(name, values, make)), None)
        if guilty is None:
            raise
        reason = str(error.__cause__ or error).splitlines()[0]
        raise RagFtError(
            f"training.trainer.{guilty}={values[guilty]!r}: trl.SFTConfig does not take it ({reason}). "
            "Change the value, or leave the field out."
        ) from error


def _works_without(name: str, values: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Any]) -> bool:
    try:
        make({other: value for other, value in values.items() if other != name})
    except RagFtError:
        return False
    return True


def _check_type(name: str, value: Any) -> None:
    from pydantic import TypeAdapter, ValidationError

    hint = _hints().get(name, Any)
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        wanted = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise RagFtError(
            f"training.trainer.{name}={value!r}: trl.SFTConfig wants {wanted} here, not {type(value).__name__}. "
            "Change the value, or leave the field out."
        ) from error


@cache
def _hints() -> dict[str, Any]:
    from trl import SFTConfig

    return {name: hint for name, hint in get_type_hints(SFTConfig).items() if name not in _UNCHECKED}


_UNCHECKED = {"parallelism_config", "debug"}  # classes that YAML cannot write, or text as well as a list of them
