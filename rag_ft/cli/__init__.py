"""The `rag-ft` command: finds the verb, runs it, turns mistakes into one clear message. Does no verb's work.

A verb is one line in `VERBS` and a module `rag_ft/cli/<verb>.py` (`_` for `-`) with `run(...) -> int`, annotated for
typer. The module is imported only when its verb is called, so that `rag-ft --help` costs no more than this file.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from data_builders.errors import RagFtError
from rag_ft import __version__
from rag_ft.training.ranks import speaks

VERBS = {
    "recipes": "List, show or copy the recipes that come with rag-ft.",
    "check": "Check a recipe: all its mistakes at once, or a summary of what it does.",
    "import-check": "Tell which kind of source fits a file or folder of yours, and show what it makes of it.",
    "build": "Build training rows and evaluation pools.",
    "inspect": "Show training rows as the model sees them, token by token.",
    "train": "Train the adapter.",
    "evaluate": "Measure accuracy as passages are added, against baselines.",
    "compare": "Compare the systems of several runs, question by question.",
    "report": "Write the report page, the figures and the model card.",
    "run": "All of it: build, train, evaluate, report.",
    "export": "Export the adapter, the merged model, or a GGUF file for Ollama and llama.cpp.",
    "push": "Send adapter, exported model or data to the Hugging Face Hub, with a card.",
    "ask": "Answer a question from a folder of documents, with file and page.",
    "demo": "Ask your documents on a page in the browser, base and tuned model side by side.",
    "schema": "Write the JSON Schema of recipes, for editors.",
    "doctor": "Show what works on this machine, and how to get what does not.",
}
"""Every verb and its help line, in the order of the help page."""

_DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EROFS: "choose a folder that can be written with runs_dir=PATH",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rag-ft` with the given arguments (those of the process by default).

    Returns:
        The exit code: 0 done, 1 done with a negative finding, 2 the user's mistake (one message on stderr),
        130 interrupted. Any other exception is our bug and is raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _dispatch(arguments)
    except RagFtError as error:
        if debug:
            raise
        return _fail(str(error))
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        _say(f"interrupted: {str(interrupt) or 'the same command goes on where this one stopped.'}\n")
        return 130
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug or error.errno not in _DISK:
            raise
        return _fail(f"cannot use {error.filename or 'the disk'}: {error.strerror}; {_DISK[error.errno]}.")


def _dispatch(arguments: list[str]) -> int:
    verb = arguments[0] if arguments else "--help"
    if verb in ("--help", "-h"):
        sys.stdout.write(_help())
        return 0
    if verb == "--version":
        sys.stdout.write(f"rag-ft {__version__}\n")
        return 0
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean rag-ft {near[0]}?" if near else "see rag-ft --help"
        raise RagFtError(f"there is no {'option' if verb.startswith('-') else 'verb'} {verb}: {hint}")
    for argument in arguments[1:]:
        key = argument.partition("=")[0]
        if key.startswith("--") and "." in key:
            raise RagFtError(f"{argument}: overrides are written without dashes: {argument[2:]}")
    return _run_verb(verb, arguments[1:])


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{line}" for verb, line in VERBS.items()]
    return "\n".join(
        [
            "Usage: rag-ft VERB [ARGUMENTS]",
            "",
            "Fine-tune the generator of a RAG system so that it stays right as more passages are retrieved.",
            "",
            "Verbs:",
            *lines,
            "",
            "Options:",
            "  --help     Show this page; rag-ft VERB --help shows the arguments of a verb.",
            "  --version  Show the version.",
            "  --debug    With any verb: show the traceback of a mistake.",
            "",
            "Start with: rag-ft check quickstart",
            "",
        ]
    )


def _run_verb(verb: str, arguments: list[str]) -> int:
    """Parse a verb's arguments with typer and run it; usage errors are typer's, with exit code 2."""
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    outcome: list[int | BaseException] = []
    run = _recording(import_module(f"rag_ft.cli.{verb.replace('-', '_')}").run, outcome)
    app.command(help=run.__doc__, epilog="With --debug, a mistake shows its traceback.")(run)
    code: object = 0
    try:
        typer.main.get_command(app).main(arguments, prog_name=f"rag-ft {verb}")
    except SystemExit as end:
        code = end.code
    return _outcome(outcome, code)


def _recording(run: Callable[..., int], outcome: list[int | BaseException]) -> Callable[..., None]:
    """Wrap a verb so that its result and its exceptions pass by typer, which has its own idea of both."""

    @functools.wraps(run)
    def verb(*args: object, **kwargs: object) -> None:
        try:
            outcome.append(run(*args, **kwargs))
        except (Exception, KeyboardInterrupt) as error:
            outcome.append(error)

    return verb


def _outcome(outcome: list[int | BaseException], code: object) -> int:
    if not outcome:
        return code if isinstance(code, int) else 0
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _fail(message: str) -> int:
    _say(f"error: {message}\n")
    return 2


def _say(message: str) -> None:
    """Write to stderr; of several processes that train together, one does."""
    if speaks():
        sys.stderr.write(message)
