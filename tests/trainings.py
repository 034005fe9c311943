"""Trains recipes one after the other in a process of its own: `python tests/trainings.py RECIPE...`; beside each
recipe it leaves result.json with the hash of each stage's token rows, or with the message of a refusal.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def trained(path: Path) -> dict[str, Any]:
    """Train a recipe in this process; return the hash of the token rows of every stage, or the refusal."""
    from data_builders.errors import RagFtError
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run
    from rag_ft.training.run import train

    recipe = load_recipe(path)
    try:
        train(recipe, open_run(recipe), lambda line: None)
    except RagFtError as error:
        return {"refused": str(error)}
    return {"rows": row_hashes(recipe), "unsloth": "unsloth" in sys.modules}


def row_hashes(recipe: Any) -> list[str]:
    """Hash ids, labels and segment lengths of every row, stage by stage."""
    from data_builders.paths import data_paths
    from rag_ft.models.load import load_tokenizer
    from rag_ft.models.weights import resolve_weights
    from rag_ft.prompting.encode import Encoder
    from rag_ft.runs import run_folder
    from rag_ft.training.dataset import stage_rows
    from rag_ft.training.stages import planned_stages

    run = run_folder(recipe)
    tokenizer = load_tokenizer(recipe.model, resolve_weights(recipe.model.weights, recipe.model.revision))
    encoder = Encoder(tokenizer, recipe.model.prompt, recipe.model.chat_template_kwargs)
    labels = data_paths(run.data).labels["train"]
    stages = [stage_rows(recipe, stage, labels, encoder) for stage in planned_stages(recipe.training, run.training)]
    texts = [json.dumps([row.columns() for row in rows.tokens]) for rows in stages]
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def main(recipes: list[str]) -> None:
    for recipe in map(Path, recipes):
        recipe.with_name("result.json").write_text(json.dumps(trained(recipe)))


if __name__ == "__main__":
    main(sys.argv[1:])
