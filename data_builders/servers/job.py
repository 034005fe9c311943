"""A job of calls to a teacher: asked at once, kept, within a budget, with progress. What is asked is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_builders.manifest import Tally, read_manifest
from data_builders.progress import Progress
from data_builders.servers import Asker, Call, Reply
from data_builders.servers.budget import Spending, Tokens, amount, price
from data_builders.servers.client import server_asker, teacher_writing
from data_builders.servers.settings import TeacherSettings
from data_builders.servers.store import Store, call_hash, kept_on_arrival

PASSING = "calls without an answer that may get one another time"
"""What a step counts them under, for `ask_again`."""


def teacher_job(
    settings: TeacherSettings, store: Path, report: Callable[[str], None], total: int | None = None
) -> Asker:
    """Return what asks a teacher for all that a step needs: every reply is on disk before it is yielded.

    Make one for the whole step: budget, and what the server was found to take, are remembered from job to job. While
    one job's replies are awaited it may be asked for others (a second try at one of them).

    Args:
        settings: who is asked, how, and what it may cost.
        store: the file of replies, `*.sqlite`; a second run asks for nothing that is in it.
        report: takes lines about the progress.
        total: calls there will be in all, where that is known.

    Raises:
        RagFtError: a package is missing, the key cannot be one, or a limit in money has no prices. Asking raises what
            `server_asker` and `kept` say, BudgetSpentError among it.
    """
    spending = Spending.of(settings)
    server = server_asker(settings, teacher_writing(settings), spending)
    asker = kept_on_arrival(server, store, identity_of(settings))
    return _shown(asker, spending, report, total)


def identity_of(settings: TeacherSettings) -> dict[str, Any]:
    """Return what decides an answer besides the call. Where the server listens is no part of it: it may move."""
    return settings.model_dump(mode="json", include={"model", "temperature", "max_tokens", "structured", "extra_body"})


def not_kept(calls: Iterable[Call], settings: TeacherSettings, store: Path) -> Iterator[Call]:
    """Yield the calls that a job would send, for a dry run of one that was begun. Makes no file.

    Raises:
        RagFtError: the store is damaged or none of ours.
    """
    if not store.exists():
        yield from calls
        return
    identity = identity_of(settings)
    with Store.open(store) as opened:
        yield from (call for call in calls if opened.get(call_hash(identity, call)) is None)


def ask_again(folder: Path) -> dict[str, Any]:
    """Return why a finished step has to run again though nothing changed: calls that failed in passing last time.

    It is compared with what was so before that run, so calls that fail again are left alone until their number changes;
    where none is left, nothing differs.
    """
    manifest = read_manifest(folder) or {}
    failed = manifest.get("counts", {}).get(PASSING, 0)
    before: dict[str, Any] = manifest.get("outside", {})
    return {"because": f"calls without an answer may get one now: {failed}"} if failed else before


def count_tokens(reply: Reply, tally: Tally) -> None:
    """Count what a reply that a step uses took to read and to write, in an earlier run too."""
    tally.count("tokens read", reply.prompt_tokens or 0)
    tally.count("tokens written", reply.output_tokens or 0)


def count_money(settings: TeacherSettings, tally: Tally) -> None:
    """Note what the tokens counted cost by the prices given; nothing without prices."""
    tokens = Tokens(*(tally.counts.get(f"tokens {name}", 0) for name in ("read", "written")))
    money = price(tokens, settings.input_price, settings.output_price)
    if money is not None:
        tally.counts["money"] = round(money, 4)


def _shown(asker: Asker, spending: Spending, report: Callable[[str], None], total: int | None) -> Asker:
    """Return an asker that shows how far all its jobs have come together."""
    done = known = 0

    def ask(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        nonlocal done, known
        with Progress("calls answered", total, report) as progress:
            progress.start_at(done)
            for call, reply in asker(calls):
                done += 1
                known = max(known, done - spending.calls)  # at least: some answers are there and not yet yielded
                progress.advance(1, before=known, unit=_unit(spending))
                yield call, reply

    return ask


def _unit(spending: Spending) -> str:
    cost = "" if spending.money is None else f", {amount(spending.money)} spent"
    return f"calls answered, {spending.used.prompt + spending.used.output:,} tokens{cost}"
