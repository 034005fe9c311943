"""`rag-ft export`: which form goes where. Knows no command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from data_builders.errors import RagFtError
from rag_ft.export.folder import check_place
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder

Report: TypeAlias = Callable[[str], None]


def export(recipe: Recipe, run: RunFolder, form: str, folder: Path | None, report: Report) -> None:
    """Export what a run has trained in one of the `FORMS`.

    Args:
        recipe: of the run.
        run: its folder.
        form: a name in `FORMS`.
        folder: where it goes; None is `export/<form>` in the run's folder.
        report: takes lines for the user.

    Raises:
        RagFtError: there is no such form, nothing is trained, or the export fails.
    """
    if form not in FORMS:
        raise RagFtError(f"export {form}: there is no such form. Take adapter, merged or gguf.")
    folder = folder or run.root / "export" / form
    check_place(folder)
    FORMS[form](recipe, run, folder, report)


def _adapter(recipe: Recipe, run: RunFolder, folder: Path, report: Report) -> None:
    from rag_ft.export.adapter import export_adapter

    for line in export_adapter(recipe, run, folder):
        report(line)


def _merged(recipe: Recipe, run: RunFolder, folder: Path, report: Report) -> None:
    from rag_ft.export.merged import export_merged
    from rag_ft.export.trained import find_trained

    export_merged(find_trained(recipe, run), folder, report)


def _gguf(recipe: Recipe, run: RunFolder, folder: Path, report: Report) -> None:
    from rag_ft.export.gguf import export_gguf
    from rag_ft.export.trained import find_trained

    export_gguf(find_trained(recipe, run), folder, report)


FORMS: dict[str, Callable[[Recipe, RunFolder, Path, Report], None]] = {
    "adapter": _adapter,
    "merged": _merged,
    "gguf": _gguf,
}
"""What a run can be exported as."""
