"""Reading a generator's output back by the settings of its prompt. Headed text is read in data_builders/targets.py."""

from __future__ import annotations

from data_builders.targets import MARK as MARK
from data_builders.targets import Judgement as Judgement
from data_builders.targets import Parsed as Parsed
from data_builders.targets import Quote as Quote
from data_builders.targets import cited_numbers as cited_numbers
from data_builders.targets import one_line as one_line
from data_builders.targets import read_target
from data_builders.targets import split_quote as split_quote
from rag_ft.prompting.settings import PromptSettings


def parse_output(output: str, settings: PromptSettings) -> Parsed:
    """Take an output apart in the style of `settings`, as `read_target` does. Never raises: outputs are untrusted."""
    return read_target(output, settings.style, settings.abstention)
