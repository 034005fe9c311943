"""`rag-ft ask`: a question over a folder of documents, answered with its passages. The work is in rag_ft/app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag_ft.cli.arguments import (
    AdapterOption,
    KeyOption,
    MismatchOption,
    ModelOption,
    RunOption,
    ServerOption,
)

if TYPE_CHECKING:
    from rag_ft.app.ask import Order, Sought
    from rag_ft.app.settings import LibrarySettings
    from rag_ft.generator import Answer, Generator


def run(  # typer makes an option of every argument
    documents: Annotated[Path, typer.Argument(metavar="DOCS", help="A folder of documents, or one document.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Settings of the library, for example ocr_languages=kor+eng."),
    ] = None,
    adapter: AdapterOption = None,
    run: RunOption = None,
    server: ServerOption = None,
    model: ModelOption = None,
    api_key_env: KeyOption = None,
    passages: Annotated[int, typer.Option("-k", "--passages", min=1, help="How many passages to show.")] = 10,
    order: Annotated[
        Literal["reordered", "retrieved"],
        typer.Option(help="reordered: the best at both ends, where models look; retrieved: the best first."),
    ] = "reordered",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print the prompt too.")] = False,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the library is kept; else in the cache.")
    ] = None,
    allow_prompt_mismatch: MismatchOption = False,
) -> int:
    """Answer a question from documents, with file and page of what it cites. Exit code 1: there is no answer in them.

    Files are read once and kept; later only those that changed are read again.
    """
    from rag_ft.app.ask import answer, is_answered
    from rag_ft.app.listing import list_documents
    from rag_ft.app.options import library_settings
    from rag_ft.app.words import answer_lines
    from rag_ft.cli.references import named_as_options, reference_of
    from rag_ft.generator import load_generator

    chosen = library_settings(settings or ())
    _check(question, server, model)
    list_documents(documents)  # a name that is wrong is told before a model is loaded
    reference = reference_of(adapter, run, server, _tell)
    access: dict[str, Any] = {"server": server, "model": model, "api_key_env": api_key_env}
    with named_as_options():
        generator = load_generator(reference, **access, allow_prompt_mismatch=allow_prompt_mismatch)
    sought = _sought(documents, question, (passages, order), chosen, store)
    if show_prompt:
        typer.echo(_prompt(generator, sought), err=as_json)
    answered = answer(generator, sought)
    typer.echo(_json(sought, answered) if as_json else "\n".join(answer_lines(sought, answered)))
    return 0 if is_answered(answered) else 1


def _check(question: str, server: str | None, model: str | None) -> None:
    from data_builders.errors import RagFtError

    if not question.strip():
        raise RagFtError('the question is empty. Write it in quotes: rag-ft ask DOCS "How long is the warranty?"')
    if (server is None) != (model is None):
        lacks = "--model NAME is missing" if server else "--server URL is missing"
        raise RagFtError(f"a model on a server is named by --server and --model together: {lacks}.")


def _sought(
    documents: Path, question: str, how: tuple[int, Order], settings: LibrarySettings, store: Path | None
) -> Sought:
    """Bring the library up to date and find passages, then let go of it: the answer may take long."""
    from rag_ft.app.ask import seek
    from rag_ft.app.library import open_library, store_of
    from rag_ft.app.words import update_line

    with open_library(store or store_of(documents), settings=settings, report=_tell) as library:
        sought = seek(library, documents, question, *how)
    _tell(update_line(sought.added))
    return sought


def _json(sought: Sought, answered: Answer | None) -> str:
    import json

    from rag_ft.app.words import as_json

    return json.dumps(as_json(sought, answered), indent=2)


def _prompt(generator: Generator, sought: Sought) -> str:
    """Return the prompt as messages, as the generator's own writer has them where it shows it."""
    from rag_ft.app.words import printable
    from rag_ft.prompting.messages import message_writer

    own = (getattr(generator, name, None) for name in ("encoder", "writer"))
    writer: Any = next(filter(None, own), None) or message_writer(generator.settings, None)
    messages = writer.messages(sought.question, sought.passages)
    return "".join(f"--- {one['role']}\n{printable(one['content'])}\n" for one in messages) + "---"


def _tell(line: str) -> None:
    from rag_ft.app.words import printable

    typer.echo(printable(line), err=True)
