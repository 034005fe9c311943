"""Predictions on disk: one JSON line per answer, kept through a crash. Scores nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from rag_ft.evaluation.conditions import GoldMode

PredictionKey = tuple[str, str, str, int, str]


@dataclass(frozen=True)
class Prediction:
    """What one system answered to one question at one point of the sweep.

    Attributes:
        gold: what the context was: a sweep mode (`kept`, `retrieved`) or a single reference point.
        passages: how many passages the sweep point shows.
        shown: ids of the passages in the order shown.
        answerable: the evidence is shown: all gold passages, or an alternative where one is enough.
        answers: accepted answers.
        output: the raw text the model wrote.
        answer: the short answer parsed out of it; None where the model abstained or nothing could be parsed.
        seconds: wall-clock time of this answer; a batch's time is shared out by its caller.
        failure: why generation failed, None if it did not. A failed generation counts as wrong and is never dropped.
        variant: the other axes of its condition, as Condition.variant writes them.
        confidence: mean log-probability of what was written; None where the engine does not say.
        planted: the answer that a counterfactual context states instead of the accepted ones; else empty.
        route: for self_route, `few` where the first try was answered, `all` where it declined; else empty.
        calls: prompts asked for this answer.
    """

    question_id: str
    group: str
    system: str
    gold: GoldMode
    passages: int
    shown: tuple[str, ...]
    answerable: bool
    answers: tuple[str, ...]
    output: str
    answer: str | None
    abstained: bool
    prompt_tokens: int
    output_tokens: int
    seconds: float
    failure: str | None
    variant: str = ""
    confidence: float | None = None
    planted: str = ""
    route: str = ""
    calls: int = 1

    @property
    def key(self) -> PredictionKey:
        """What makes a prediction unique: question, system, gold mode, passage count and the other axes."""
        return (self.question_id, self.system, self.gold, self.passages, self.variant)


class PredictionStore:
    """An append-only JSONL file of predictions, bound to a fingerprint by its first line.

    A run that is killed loses at most the batch in flight: what it had begun to write is cut off on the next opening.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open the store, or create it.

        Args:
            path: the JSONL file.
            fingerprint: hash of everything that decides an answer (recipe part, weights, prompt).

        Raises:
            RagFtError: the file holds predictions of another fingerprint, or is damaged before its last line.
        """
        self.path = path
        lines = _mended_lines(path) if path.exists() else []
        if lines:
            _check_header(path, lines[0], fingerprint)
        else:
            _create(path, fingerprint)
        self._done = {row.key for row in _parse_rows(path, lines[1:])}

    def append(self, rows: Sequence[Prediction]) -> None:
        """Add a batch; when this returns, the batch is on the disk."""
        text = "".join(_dump(asdict(row)) for row in rows)
        with self.path.open("ab") as stream:
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        self._done.update(row.key for row in rows)

    def done(self) -> set[PredictionKey]:
        """Return the keys of what is already answered."""
        return set(self._done)

    def read(self) -> list[Prediction]:
        """Return every prediction in the order written."""
        return _parse_rows(self.path, self.path.read_bytes().split(b"\n")[1:-1])


def _dump(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _create(path: Path, fingerprint: str) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(_dump({"fingerprint": fingerprint}).encode("utf-8"))
        stream.flush()
        os.fsync(stream.fileno())


def _mended_lines(path: Path) -> list[bytes]:
    """Return the lines of the file; a last line without its line end is cut off the file first."""
    # Split at \n only: answers may hold the other separators that str.splitlines knows.
    *lines, half_written = path.read_bytes().split(b"\n")
    if half_written:
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size - len(half_written))
            os.fsync(stream.fileno())
    return lines


def _check_header(path: Path, line: bytes, fingerprint: str) -> None:
    try:
        found = json.loads(line)["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise RagFtError(
            f"{path} does not begin with a fingerprint, so nobody can tell which system its predictions belong to. "
            "Run `rag-ft evaluate RECIPE --restart` to start over."
        ) from error
    if found != fingerprint:
        raise RagFtError(
            f"{path} holds predictions made with other weights, prompts or settings (fingerprint {found}, "
            f"now {fingerprint}), which cannot be mixed with new ones. Run `rag-ft evaluate RECIPE --restart` to "
            "replace them, or keep them by giving this run another name with name=NAME."
        )


def _parse_rows(path: Path, lines: Iterable[bytes]) -> list[Prediction]:
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            row = json.loads(line)
            rows.append(Prediction(**{**row, "shown": tuple(row["shown"]), "answers": tuple(row["answers"])}))
        except (ValueError, KeyError, TypeError) as error:
            raise RagFtError(
                f"line {number} of {path} is not a prediction ({error}), so the file was damaged or written by another "
                "version. Run `rag-ft evaluate RECIPE --restart` to start over."
            ) from error
    return rows
