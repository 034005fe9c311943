"""The recipes and prompt templates that come with rag-ft: where they are and what they are called. Loads none."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

_MARK = "schema.json"


@cache
def shipped_folder() -> Path:
    """Return the folder of shipped recipes: `recipes/` of a checkout, or `share/rag-ft/recipes` where installed.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    checkout = Path(__file__).parents[2] / "recipes"
    if (checkout / _MARK).is_file():
        return checkout
    for file in metadata.files("rag-ft") or ():
        if file.parts[-3:] == ("rag-ft", "recipes", _MARK):
            return Path(str(file.locate())).resolve().parent
    raise FileNotFoundError(f"no recipes/{_MARK} in this installation of rag-ft")


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name (`quickstart`, `base/x`), sorted."""
    folder = shipped_folder()
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def shipped_templates() -> dict[str, Path]:
    """Return the prompts for teachers by name (`templates/self_reasoning`), sorted."""
    import data_builders

    files = sorted(Path(data_builders.__file__).parent.glob("*/templates/*.txt"))
    return {f"templates/{file.stem}": file for file in files if "repair" not in file.stem}  # those are no setting


def summary(path: Path) -> str:
    """Return the first comment of a recipe that is neither the schema line nor a command."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#"):
            break
        if text and not text.startswith(("yaml-language-server", "rag-ft ", "$ ")):
            return text
    return ""
