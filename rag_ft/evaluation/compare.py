"""Several runs side by side: their answers paired by question, tested and put into one table of scores.

Reads answers.jsonl; generates nothing and scores no answer anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.evaluation.cells import Sampling, mean, plain
from rag_ft.evaluation.conditions import REFERENCES
from rag_ft.evaluation.metrics import abstention
from rag_ft.evaluation.statistics import Bootstrap, ResampledMeans, detectable_difference, holm
from rag_ft.runs import read_json

Rows = Mapping[str, Mapping[str, Any]]
"""Answers by question id."""
Place = tuple[str, str, int]
"""Gold mode, variant and passage count (0 for a reference)."""
Text = tuple[str, tuple[str, ...]]
"""A question and its accepted answers."""

_AGAIN = "rag-ft evaluate RECIPE"
_EVERYONE = "all"
_POWER = 0.8
_FIELDS = ("question_id", "group", "system", "gold", "passages", "accuracy", "abstained", "failure", "answerable")
_NO_METRIC = {
    *_FIELDS[:5],
    *_FIELDS[6:],
    *("variant", "confidence", "route", "prompt_tokens", "output_tokens", "seconds", "calls"),
    *("answer", "cost", "document", "partial"),
}


@dataclass(frozen=True)
class Run:
    """What one run measured.

    Attributes:
        name: how the comparison calls it.
        folder: of the run.
        scores: its scores.json.
        rows: of its answers.jsonl.
        texts: its questions by id, as far as its data are still there.
    """

    name: str
    folder: Path
    scores: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    texts: Mapping[str, Text]

    def questions(self) -> set[str]:
        """Return the ids of all questions it answered."""
        return {row["question_id"] for row in self.rows}


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Read an answers.jsonl.

    Raises:
        RagFtError: it is missing (older versions wrote none) or damaged.
    """
    try:
        # Split at \n only: answers may hold the other separators that str.splitlines knows.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise RagFtError(
            f"{path} does not exist: the run was not evaluated, or by a version that kept no single answers. "
            f"Write it with `{_AGAIN}`; answers that are there are not asked for again."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RagFtError(f"cannot read {path}: {error}. Write it again with `{_AGAIN}`.") from error
    return [_row(path, number, line) for number, line in enumerate(lines, start=1) if line]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        missing = [name for name in _FIELDS if name not in row]
    except (ValueError, TypeError) as error:
        raise RagFtError(f"line {number} of {path} is no answer ({error}). Write it again with `{_AGAIN}`.") from error
    if missing:
        raise RagFtError(f"line {number} of {path} lacks {', '.join(missing)}. Write it again with `{_AGAIN}`.")
    return {"variant": "", **row}


def read_outputs(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return all that was written for some rows of answers.jsonl, by question and system, where it is still there.

    Files of earlier weights may lie beside those that were scored: what is taken was parsed to the same answer and
    took as many tokens.
    """
    wanted = {_written(row): (row["question_id"], row["system"]) for row in rows}
    found = {}
    for path in sorted((folder / "evaluation" / "predictions").glob("*.jsonl")):
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                row = _parsed(line)
                if row and (key := _written(row)) in wanted:
                    found[wanted[key]] = str(row.get("output", ""))
    return found


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a line as a mapping; None for one that a killed run left half written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "question_id" in row else None


def _written(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("question_id", "system", "gold", "passages", "prompt_tokens", "output_tokens", "answer")
    return (*(row.get(name) for name in names), row.get("variant", ""))


def read_run(folder: Path, texts: Mapping[str, Text]) -> Run:
    """Read what a run measured; see `Run` for `texts`.

    Raises:
        RagFtError: scores.json or answers.jsonl is missing or damaged.
    """
    scores = read_json(folder / "evaluation" / "scores.json", _AGAIN)
    rows = read_answers(folder / "evaluation" / "answers.jsonl")
    if not isinstance(scores, dict) or "cells" not in scores or not rows:
        raise RagFtError(f"{folder / 'evaluation'} holds no scored answers. Write them with `{_AGAIN}`.")
    return Run(scores["run"], folder, scores, rows, texts)


def compare(runs: Sequence[Run], baseline: str | None = None) -> dict[str, Any]:
    """Compare all systems of all runs on the questions that all runs answered.

    Returns:
        The keys of scores.json (see rag_ft.evaluation.scores.score_cases) with every system named "run: system"
        where there are several runs: cells, differences and detectable are over the shared questions; robustness,
        curves, thresholds and routing stand there only where each run answered exactly those; drops, retention and
        recall are empty. Further: runs (name, folder, questions, partial), shared, notes (sentences on what limits
        the comparison).

    Raises:
        RagFtError: a run is given twice, the runs share no question or asked others under the same ids, they were
            scored by another metric, or no system has the name of the baseline.
    """
    runs = _named(runs)
    shared = _shared(runs)
    _check_metric(runs)
    answers = {_called(runs, run, system): rows for run in runs for system, rows in _by_system(run, shared).items()}
    first = runs[0].scores
    against = _baseline(list(answers), _called(runs, runs[0], first["baseline"]), baseline)
    sampling = _sampling(runs)
    tables = _tables(answers, shared, against, sampling)
    needed = detectable_difference(len(shared), power=_POWER, confidence=first["confidence"])
    return {
        "run": ", ".join(run.name for run in runs),
        "runs": [_told(run) for run in runs],
        "partial": any(run.scores["partial"] for run in runs),
        **{key: first[key] for key in ("confidence", "resamples", "metric")},
        "interval": sampling.bootstrap.interval,
        "resample": "question" if sampling.clusters is None else "document",
        "seed": sampling.bootstrap.seed,
        "baseline": against,
        "shared": len(shared),
        "notes": _notes(runs, shared),
        "questions": {group: len(ids) for group, ids in _groups(runs, shared).items()},
        "detectable": {"n": len(shared), "power": _POWER, "difference": round(needed, 6)},
        **tables,
        **{key: [] for key in ("recall", "drops", "retention")},
        **{key: _carried(runs, shared, key) for key in ("robustness", "curves", "thresholds", "routing")},
    }


def _sampling(runs: Sequence[Run]) -> Sampling:
    """Return how the first run drew: its seed, its intervals, and its documents where it drew those."""
    first = runs[0].scores
    bootstrap = Bootstrap(
        first["confidence"], first["resamples"], first.get("seed", 0), first.get("interval", "percentile")
    )
    if first.get("resample", "question") == "question":
        return Sampling(bootstrap)
    return Sampling(bootstrap, {row["question_id"]: row["document"] for row in runs[0].rows if row.get("document")})


def _told(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "questions": len(run.questions()),
        "partial": run.scores["partial"],
    }


def _named(runs: Sequence[Run]) -> list[Run]:
    """Return the runs under names that tell them apart: their own, or their folders'."""
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        twice = next(run.folder for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1)
        raise RagFtError(f"{twice} is given twice; a run differs from itself in nothing. Name each run once.")
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    return [Run(str(run.folder), run.folder, run.scores, run.rows, run.texts) for run in runs]


def _called(runs: Sequence[Run], run: Run, system: str) -> str:
    return system if len(runs) == 1 else f"{run.name}: {system}"


def _shared(runs: Sequence[Run]) -> list[str]:
    """Return the questions all runs answered, and make sure they are the same questions."""
    shared = set.intersection(*(run.questions() for run in runs))
    if not shared:
        counts = ", ".join(f"{run.name} {len(run.questions())}" for run in runs)
        raise RagFtError(
            f"the runs share no question ({counts}), so nothing can be compared: they were made on other data. "
            "Evaluate them on the same test split (data.sources and data.splits of their recipes)."
        )
    first = runs[0]
    for run in runs[1:]:
        known = sorted(shared & first.texts.keys() & run.texts.keys())
        other = [name for name in known if first.texts[name] != run.texts[name]]
        if other:
            raise RagFtError(
                f"{len(other)} of {len(known)} shared question ids ask or accept something else in {run.name} than in "
                f"{first.name}, {other[0]!r} among them: the runs were made on other data. "
                "Evaluate them on the same test split (data.sources of their recipes)."
            )
    return sorted(shared)


def _check_metric(runs: Sequence[Run]) -> None:
    metrics = {run.name: run.scores["metric"] for run in runs}
    if len(set(metrics.values())) > 1:
        told = ", ".join(f"{name} {metric}" for name, metric in metrics.items())
        raise RagFtError(f"the runs were scored by different metrics ({told}). Score them anew with `{_AGAIN}`.")


def _baseline(systems: Sequence[str], usual: str, wanted: str | None) -> str:
    if wanted is None:
        return usual if usual in systems else systems[0]
    found = [name for name in systems if wanted in (name, name.rpartition(": ")[2])]
    if wanted in systems:
        return wanted
    if len(found) != 1:
        why = "is the name of several systems" if found else "is no system of these runs"
        raise RagFtError(f'--baseline "{wanted}" {why}. Write one of: {"; ".join(systems)}.')
    return found[0]


def _notes(runs: Sequence[Run], shared: Sequence[str]) -> list[str]:
    """Say what limits the comparison."""
    notes = [
        f"{run.name} answered {len(run.questions())} questions, of which {len(shared)} are shared and compared."
        for run in runs
        if len(run.questions()) > len(shared)
    ]
    if len(runs) > 1 and any(not set(shared) <= run.texts.keys() for run in runs):
        notes.append("The questions were told apart by their ids alone, since the data of a run are not there.")
    if any(len(run.questions()) > len(shared) for run in runs):
        notes.append(
            "Robustness, curves, thresholds and routing are left out: each run measured them on its own questions."
        )
    if len({run.scores.get("prompt_hash") for run in runs}) > 1:
        notes.append("The runs were made with different prompts.")
    if len({run.scores.get("version") for run in runs}) > 1:
        notes.append(
            "The runs were scored by different versions of rag-ft, which may define numbers differently. Score them "
            f"anew with `{_AGAIN}`: stored answers are not asked for again."
        )
    return notes


def _by_system(run: Run, shared: Iterable[str]) -> dict[str, dict[Place, dict[str, Mapping[str, Any]]]]:
    """Return a run's answers to the shared questions by system, place and question."""
    wanted, found = set(shared), dict[str, dict[Place, dict[str, Mapping[str, Any]]]]()
    for row in run.rows:
        if row["question_id"] in wanted:
            count = 0 if row["gold"] in REFERENCES else row["passages"]
            places = found.setdefault(row["system"], {})
            places.setdefault((row["gold"], row["variant"], count), {})[row["question_id"]] = row
    return found


def _groups(runs: Sequence[Run], shared: Iterable[str]) -> dict[str, list[str]]:
    """Return the shared questions of all and of each named group, as the first run has them."""
    wanted, groups = set(shared), dict[str, set[str]]()
    for row in runs[0].rows:
        if row["question_id"] in wanted:
            groups.setdefault(row["group"], set()).add(row["question_id"])
    named = {name: sorted(groups[name]) for name in sorted(groups) if name not in ("", _EVERYONE)}
    return {_EVERYONE: sorted(wanted), **named}


@dataclass(frozen=True)
class _Field:
    """One place and group: the answers of every system that was asked there, all to the same questions."""

    place: Place
    group: str
    ids: Sequence[str]
    answers: Mapping[str, Rows]
    metrics: Sequence[str]
    resampled: ResampledMeans

    def keys(self, system: str) -> dict[str, Any]:
        """Return what every row of a table says of where it stands."""
        gold, variant, _ = self.place
        passages = max(self.answers[system][id_]["passages"] for id_ in self.ids)
        return {"gold": gold, "variant": variant, "group": self.group, "passages": passages}

    def column(self, system: str, metric: str = "accuracy") -> int:
        return list(self.answers).index(system) * len(self.metrics) + self.metrics.index(metric)


def _tables(
    answers: Mapping[str, Mapping[Place, Rows]], shared: Sequence[str], baseline: str, sampling: Sampling
) -> dict[str, list[dict[str, Any]]]:
    cells: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for place in sorted({place for places in answers.values() for place in places}, key=lambda one: (one[:2], one[2])):
        asked = {system: places[place] for system, places in answers.items() if place in places}
        common = sorted(set(shared).intersection(*asked.values()))
        group_of = {id_: next(iter(asked.values()))[id_]["group"] for id_ in common}
        for group in [_EVERYONE, *sorted({*group_of.values()} - {"", _EVERYONE})]:
            ids = [id_ for id_ in common if group in (_EVERYONE, group_of[id_])]
            if ids:
                field = _field(place, group, ids, asked, sampling)
                cells += [_cell(field, system) for system in asked]
                differences += [_difference(field, system, baseline, sampling) for system in asked if baseline in asked]
    differences = [row for row in differences if row["system"] != baseline]
    everyone = [row for row in differences if row["group"] == _EVERYONE]
    for row, corrected in zip(everyone, holm([row["p"] for row in everyone]), strict=True):
        row["p_holm"] = float(f"{corrected:.6g}")
    return {"cells": _in_order(cells, answers), "differences": _in_order(differences, answers)}


def _in_order(rows: list[dict[str, Any]], answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    place = {system: number for number, system in enumerate(answers)}
    return sorted(rows, key=lambda row: place[row["system"]])


def _field(place: Place, group: str, ids: Sequence[str], asked: Mapping[str, Rows], sampling: Sampling) -> _Field:
    firsts = [rows[ids[0]] for rows in asked.values()]
    metrics = [name for name in firsts[0] if name not in _NO_METRIC and all(name in row for row in firsts)]
    columns = [[_number(rows[id_][name]) for id_ in ids] for rows in asked.values() for name in metrics]
    return _Field(place, group, ids, asked, metrics, sampling.resample(columns, ids))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _cell(field: _Field, system: str) -> dict[str, Any]:
    rows = [field.answers[system][id_] for id_ in field.ids]
    sound = [row for row in rows if row["failure"] is None]
    costs = [row["cost"] for row in rows if row.get("cost") is not None]
    return {
        "system": system,
        **field.keys(system),
        "n": len(rows),
        "answerable": sum(row["answerable"] for row in rows),
        **{name: plain(field.resampled.mean(field.column(system, name))) for name in field.metrics},
        "abstention": asdict(
            abstention((row["answerable"], row["abstained"]) for row in sound if row["gold"] != "closed_book")
        ),
        "failures": len(rows) - len(sound),
        **{name: mean(row[name] for row in rows) for name in ("prompt_tokens", "output_tokens", "seconds")},
        "calls": mean(row.get("calls", 1) for row in rows),
        "cost": sum(costs) / len(costs) if costs else None,
    }


def _difference(field: _Field, system: str, baseline: str, sampling: Sampling) -> dict[str, Any]:
    own, other = ([_number(field.answers[name][id_]["accuracy"]) for id_ in field.ids] for name in (system, baseline))
    gains = [one - two for one, two in zip(own, other, strict=True)]
    return {
        "system": system,
        "baseline": baseline,
        **field.keys(system),
        "accuracy": plain(field.resampled.difference(field.column(system), field.column(baseline))),
        **sampling.tally(gains, field.ids),
        "p_holm": None,
    }


def _carried(runs: Sequence[Run], shared: Sequence[str], key: str) -> list[dict[str, Any]]:
    """Return what the runs measured themselves, where each of them measured it on the shared questions alone."""
    if any(len(run.questions()) != len(shared) for run in runs):
        return []
    return [{**row, "system": _called(runs, run, row["system"])} for run in runs for row in run.scores.get(key, ())]
