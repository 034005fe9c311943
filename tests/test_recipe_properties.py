"""Whatever a user writes, loading gives a recipe or a RagFtError, never another exception."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_builders.errors import RagFtError
from rag_ft.cli.check import resolved_yaml
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.settings import Recipe

VALID = """name: x
seed: 3
data:
  sources:
    world: {kind: invented_world, questions: {train: 20, test: 10}, words: [40, 60]}
    own: {kind: jsonl, path: {train: [a.jsonl], test: b.jsonl}, weight: 2}
    files: {kind: documents, path: files, include: ["*.md"]}
  retrievers: [{kind: bm25, k1: 0.9}, {kind: dense, model: m, query_prefix: "query: "}]
  ranking: {kind: rrf, weights: {bm25: 1, dense: 2}}
  depth: 20
  contexts: {passages: {kind: range, low: 2, high: 5}, order: shuffled}
model: {lora: {rank: 8, target_modules: [q_proj]}, prompt: {style: reasoning}}
training: {learning_rate: 1e-4, report_to: [wandb], trainer: {weight_decay: 0.1}}
evaluation:
  passages: [1, 5]
  systems:
    - {name: base, weights: base}
"""
PIECES = st.sampled_from(
    [
        "kind:",
        "extends: ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "null",
        "1e-4",
        "\t",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "? ",
        "'",
        '"',
    ]
) | st.text(max_size=6)
KEYS = st.sampled_from(
    [
        *("name", "data", "contexts", "passages", "kind", "low", "count", "0", "1", "2", "training", "trainer"),
        *("sources", "own", "new", "path", "train", "retrievers", "ranking", "weights", "negatives", "shares"),
    ]
)
VALUES = st.sampled_from(
    [
        "",
        "1",
        "-1",
        "range",
        "[1]",
        "{kind: fixed}",
        "null",
        "1e400",
        "[",
        "@",
        "x: y",
        "squad",
        "{kind: dense}",
        "[{}]",
    ]
) | st.text(max_size=5)
FAST = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def load(text, overrides=()):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            return load_recipe(path, overrides)
        except RagFtError:
            return None


@FAST
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_random_edits_give_a_recipe_or_a_clear_error(edits):
    text = VALID
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    loaded = load(text)
    assert loaded is None or isinstance(loaded, Recipe)


@FAST
@given(st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=4), VALUES), min_size=1, max_size=3))
def test_random_overrides_give_a_recipe_or_a_clear_error(overrides):
    loaded = load(VALID, [".".join(keys) + "=" + value for keys, value in overrides])
    assert loaded is None or isinstance(loaded, Recipe)


@FAST
@given(
    st.builds(
        lambda seed, rate, count, sweep: [
            f"seed={seed}",
            f"training.learning_rate={rate!r}",
            f"data.contexts.passages.high={count}",
            f"evaluation.passages={sorted(sweep)}",
        ],
        st.integers(0, 2**32 - 1),
        st.floats(1e-9, 1, exclude_min=True),
        st.integers(2, 20),
        st.sets(st.integers(1, 20), min_size=1),
    )
)
def test_the_resolved_recipe_loads_to_the_same_recipe(overrides):
    recipe = load(VALID, overrides)
    assert recipe is not None
    assert load(resolved_yaml(recipe)) == recipe
