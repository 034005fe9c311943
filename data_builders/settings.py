"""The base of every settings class: strict, frozen, documented by its own docstrings. Holds no settings itself."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section of the recipe. Unknown keys are errors; the string under a field is its help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)
