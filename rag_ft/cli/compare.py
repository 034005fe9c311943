"""`rag-ft compare`: the systems of several runs, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_builders.records import Pool
    from rag_ft.evaluation.compare import Run


def run(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [a.b=c]",
            help="Run folders or recipes, and settings to change in the recipes, for example runs_dir=PATH.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(metavar='"RUN: SYSTEM"', help="Compare with this system instead of the first.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as a page.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as JSON.")] = None,
) -> int:
    """Compare the systems of evaluated runs on the questions they share: won, tied, lost, with intervals."""
    from rich.console import Console

    from data_builders.errors import RagFtError
    from data_builders.files import write_json
    from rag_ft.evaluation.compare import compare, read_run
    from rag_ft.report.terminal import comparison_table

    overrides = [one for one in runs if "=" in one and not Path(one).exists()]
    folders = [_folder(one, overrides) for one in runs if one not in overrides]
    if not folders:
        raise RagFtError("there is no run to compare. Write rag-ft compare RUN with run folders or recipes.")
    pools = [questions_of(folder) for folder in folders]
    found = [read_run(folder, _texts(known)) for folder, known in zip(folders, pools, strict=True)]
    compared = compare(found, baseline)
    Console().print(comparison_table(compared))
    if json:
        write_json(json, compared)
        typer.echo(f"json: {json}")
    if html:
        _write_page(html, compared, found, {key: pool for known in reversed(pools) for key, pool in known.items()})
        typer.echo(f"page: {html}")
    return 0


def _folder(name: str, overrides: Sequence[str]) -> Path:
    """Return the run folder that is named, or that of a recipe."""
    if (Path(name) / "evaluation").is_dir() or (Path(name).is_dir() and not Path(name).suffix):
        return Path(name)
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import run_folder

    return run_folder(load_recipe(name, overrides)).root


def questions_of(folder: Path) -> dict[str, Pool]:
    """Return the test questions of a run with their gold passages; none where its data are not there."""
    from dataclasses import replace

    from data_builders.paths import data_paths
    from data_builders.tables import read_pools

    path = data_paths(folder / "data").pools["test"]
    if not path.is_file():
        return {}
    return {
        pool.id: replace(pool, passages=tuple(passage for passage in pool.passages if passage.is_gold))
        for pool in read_pools(path)
    }


def _texts(pools: Mapping[str, Pool]) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {name: (pool.question, pool.answers) for name, pool in pools.items()}


def _write_page(path: Path, compared: Mapping[str, Any], runs: Sequence[Run], pools: Mapping[str, Pool]) -> None:
    from rag_ft.evaluation.compare import read_outputs
    from rag_ft.report.compared import compared_html
    from rag_ft.report.disagreements import browser
    from rag_ft.report.findings import systems_of
    from rag_ft.report.page import write_text

    called = [one["name"] for one in compared["runs"]]
    prefix = ["" if len(runs) == 1 else f"{name}: " for name in called]
    answers = [
        {**row, "system": f"{before}{row['system']}"}
        for before, found in zip(prefix, runs, strict=True)
        for row in found.rows
    ]

    def outputs(rows: list[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        written: dict[tuple[str, str], str] = {}
        for before, found in zip(prefix, runs, strict=True):
            own = [row for row in rows if row["system"].startswith(before)]
            own = [{**row, "system": row["system"].removeprefix(before)} for row in own]
            told = read_outputs(found.folder, own)
            written |= {(question, f"{before}{system}"): text for (question, system), text in told.items()}
        return written

    shown = browser(compared, answers, pools, outputs, systems_of(compared))
    trained = {name: _trained_with(found.folder) for name, found in zip(called, runs, strict=True)}
    write_text(path, compared_html(compared, shown, trained))


def _trained_with(folder: Path) -> str:
    """Return the retrievers whose passages a run was trained on, as its recipe says; empty where it says none."""
    import yaml

    try:
        data = yaml.safe_load((folder / "recipe.resolved.yaml").read_text(encoding="utf-8"))["data"]
        names = data["negatives"]["retriever_shares"] or [one["name"] or one["kind"] for one in data["retrievers"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return ""
    return ", ".join(map(str, names))
