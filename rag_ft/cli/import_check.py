"""`rag-ft import-check`: which kind of source fits a file or folder, three parsed rows, the lines for a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from data_builders.step_report import printable

if TYPE_CHECKING:
    from pathlib import Path

    from data_builders.sources.check import Example, Verdict

_WIDTH = 110  # characters of a text shown


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file or folder of yours.", show_default=False)],
) -> int:
    """Tell which kind of source fits a file or folder, show three parsed rows and the lines to put into a recipe.

    The exit code is 1 if no kind fits every row looked at.
    """
    from pathlib import Path

    from data_builders.sources.check import check_path

    path = Path(file).expanduser()
    verdicts = check_path(path)
    for line in _page(path, verdicts):
        typer.echo(line)
    return 0 if verdicts[0].fits else 1


def _page(path: Path, verdicts: list[Verdict]) -> Iterator[str]:
    best, *others = verdicts
    yield _headline(path, best)
    if best.fitting:
        yield "; ".join(f"{count} {what}" for what, count in best.counts().items() if count)
    if best.note:
        yield escaped(best.note, 3 * _WIDTH)
    for example in best.examples():
        yield from ("", *_example(example))
    if best.fits or best.fitting:
        yield from ("", "For a recipe:", "", *_recipe_lines(path, best))
    yield from _others(others if best.fits or best.fitting else verdicts)


def _headline(path: Path, best: Verdict) -> str:
    name = escaped(str(path), 3 * _WIDTH)
    if best.fits:
        looked = f" ({best.rows} row{'s' * (best.rows != 1)} looked at)" if best.rows else ""
        return f"{name} fits kind {best.kind}{looked}"
    if best.fitting:
        some = f"{best.fitting} of {best.rows} rows"
        return f"{name} fits kind {best.kind} in {some}: mend the others or set bad_rows: skip. {escaped(best.reason)}"
    return f"no kind fits {name}; compare it with the example rows in docs/sources.md, or write it as kind jsonl"


def _example(example: Example) -> Iterator[str]:
    question, passage, ranking = example.question, example.passage, example.ranking
    if question is not None:
        yield f"question  {escaped(question.question)}"
        yield f"answers   {_listed(question.answers)}"
        yield f"gold      {_listed(question.gold)}"
    if passage is not None:
        title = f"{escaped(passage.title)} | " if passage.title else ""
        yield f"passage   [{escaped(passage.id)}] {title}{escaped(passage.text)}"
    if ranking is not None:
        scored = zip(ranking.passages, ranking.scores, strict=True)
        yield f"ranking   {escaped(ranking.retriever)}: {_listed([f'{id_} {score:g}' for id_, score in scored])}"


def _listed(texts: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(escaped(text, 40) for text in texts[:3])
    return (shown or "none") + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _recipe_lines(path: Path, best: Verdict) -> Iterator[str]:
    import yaml

    name = re.sub(r"[^a-z0-9]+", "_", path.name.split(".")[0].lower()).strip("_") or "mine"
    recipe = {"data": {"sources": {name: best.settings}}}
    for line in yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=1000).splitlines():
        hint = best.hints.get(line.split(":")[0].strip())
        yield f"{line}  # {hint}" if hint else line


def _others(others: list[Verdict]) -> Iterator[str]:
    also = [verdict.kind for verdict in others if verdict.fits]
    if also:
        yield from ("", f"Fits as well, but less is made of it: {', '.join(also)}")
    rest = [verdict for verdict in others if not verdict.fits]
    if rest:
        yield from ("", "Does not fit:")
    yield from (f"  {verdict.kind:<26}{escaped(verdict.reason)}" for verdict in rest)


def escaped(text: str, width: int = _WIDTH) -> str:
    """Return a text from outside as it may stand in a terminal: one line, shortened, control characters spelled out."""
    return printable(text if len(text) <= width else f"{text[: width - 3]}...")
