"""The evaluation grid by hand, and evaluations that are killed, changed, limited or asked under another prompt."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tiny_model import copied_run, tiny_settings

from data_builders.files import content_hash, file_hash, seeded
from data_builders.paths import data_paths
from data_builders.records import Pool, PoolPassage
from data_builders.tables import read_pools
from rag_ft.evaluation.grid import chosen_pools, points, recall_rows, sweep_context
from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.models.weights import resolve_weights

Verb = Callable[..., tuple[int, str, str]]


def pool(ranked: str, missed: str = "", gold: str = "", name: str = "q", group: str = "one_hop") -> Pool:
    """A pool of one-letter passages: `ranked` best first, `missed` gold behind them with rank 0."""
    passages = [PoolPassage(p, p, p, p in gold, False, "bm25", rank, 1 / rank) for rank, p in enumerate(ranked, 1)]
    passages += [PoolPassage(p, p, p, True, False, "", 0, 0.0) for p in missed]
    return Pool(name, "Who?", ("A",), "test", group, tuple(passages))


def letters(passages: Any) -> str:
    return "".join(passage.id for passage in passages)


# the grid, by hand


@pytest.mark.parametrize(
    ("found", "gold", "kept", "retrieved"),
    [
        # gold second: in every context but the first, where it takes the only place
        (pool("abcde", gold="b"), 1, ["b", "ab", "abc", "abcde"], ["a", "ab", "abc", "abcde"]),
        # gold last: takes the last place of every context it would not be in
        (pool("abcde", gold="e"), 1, ["e", "ae", "abe", "abcde"], ["a", "ab", "abc", "abcde"]),
        # gold that retrieval missed: takes the last place, also of the longest
        (pool("abcde", missed="x"), 1, ["x", "ax", "abx", "abcdx"], ["a", "ab", "abc", "abcde"]),
        # two hops, both found: one place holds the first only
        (pool("abcde", gold="bd"), 2, ["b", "bd", "abd", "abcde"], ["a", "ab", "abc", "abcde"]),
        # two hops, one found and one missed
        (pool("abcde", gold="a", missed="x"), 2, ["a", "ax", "abx", "abcdx"], ["a", "ab", "abc", "abcde"]),
        (pool("abcde", missed="xy"), 2, ["x", "xy", "axy", "abcxy"], ["a", "ab", "abc", "abcde"]),
        # a pool shorter than the sweep
        (pool("ab", missed="x"), 1, ["x", "ax", "abx", "abx"], ["a", "ab", "ab", "ab"]),
    ],
)
def test_contexts_of_a_sweep(found: Pool, gold: int, kept: list[str], retrieved: list[str]) -> None:
    counts = (1, 2, 3, 5)
    assert [letters(sweep_context(found, count, "kept")) for count in counts] == kept
    assert [letters(sweep_context(found, count, "retrieved")) for count in counts] == retrieved


def test_points_of_a_question_cover_the_grid_and_references_come_once_for_each_kind_of_weights() -> None:
    settings = EvaluationSettings(passages=(1, 4))
    found = [
        (point.system, point.gold, point.passages, letters(point.shown), point.answerable)
        for point in points(pool("abcde", gold="d"), settings.systems, settings)
    ]
    sweeps = [("kept", 1, "d", True), ("kept", 4, "abcd", True), ("retrieved", 1, "a", False)]
    sweeps += [("retrieved", 4, "abcd", True)]
    references = [("closed_book", 0, "", False), ("gold_only", 1, "d", True)]
    # best at both ends: d1 d3 d4 d2
    turned = [(g, k, "acdb" if k == 4 else shown, a) for g, k, shown, a in sweeps]
    assert found == [
        *(("base", *row) for row in [*sweeps, *references]),
        *(("base + reordering", *row) for row in turned),
        *(("tuned", *row) for row in [*sweeps, *references]),
    ]


def test_two_hops_are_answerable_only_with_both_passages() -> None:
    settings = EvaluationSettings(passages=(1, 2), gold=("kept",), references=("gold_only",))
    found = list(points(pool("abc", gold="a", missed="x"), settings.systems[:1], settings))
    assert [(letters(point.shown), point.answerable) for point in found] == [("a", False), ("ax", True), ("ax", True)]


def test_recall_is_of_the_passages_shown_where_two_retrievers_take_turns() -> None:
    turns = pool("AB", gold="B")
    both_first = [replace(passage, rank=1) for passage in turns.passages]  # each retriever ranks its own first
    rows = recall_rows([replace(turns, passages=tuple(both_first))], (1, 2))
    assert [row["recall"] for row in rows if row["group"] == "all"] == [0, 1]


def test_recall_counts_questions_whose_gold_is_all_found() -> None:
    pools = [pool("abc", gold="a"), pool("abc", gold="ac", group="two_hop"), pool("abc", missed="x")]
    pools += [pool("abc", name="none"), pool("ab", name="nor", group="no_gold")]  # nothing could be found for them
    rows = {(row["group"], row["passages"]): row["recall"] for row in recall_rows(pools, (1, 3))}
    assert rows == {
        ("all", 1): 1 / 3,
        ("all", 3): 2 / 3,
        ("one_hop", 1): 1 / 2,
        ("one_hop", 3): 1 / 2,
        ("two_hop", 1): 0.0,
        ("two_hop", 3): 1.0,
    }


def test_drawn_questions_depend_on_seed_and_id_only() -> None:
    pools = [pool("a", name=f"q{n}") for n in range(20)]
    drawn = [p.id for p in chosen_pools(pools, 5, 1)]
    best = sorted((p.id for p in pools), key=lambda name: seeded(1, "evaluation", name).random())[:5]
    assert drawn == [p.id for p in pools if p.id in best]
    assert {p.id for p in chosen_pools(reversed(pools), 5, 1)} == set(best)
    assert set(drawn) <= {p.id for p in chosen_pools(pools, 6, 1)}
    assert [p.id for p in chosen_pools(pools, 5, 2)] != drawn


# whole evaluations


@pytest.fixture(scope="module")
def evaluated(trained_run: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe and its run, evaluated once."""
    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("evaluated")
    assert main(["evaluate", str(copied_run(folder, tiny_weights, trained_run))]) == 0
    return folder / "runs" / "tiny"


def stores(run: Path) -> dict[str, Path]:
    """The predictions file of each kind of weights; there must be one of each."""
    files = sorted((run / "evaluation" / "predictions").glob("*.jsonl"))
    found = {path.name.partition("-")[0]: path for path in files}
    assert len(found) == len(files)
    return found


def predictions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def keys(path: Path) -> list[tuple[Any, ...]]:
    names = ("question_id", "system", "gold", "passages", "variant")
    return [tuple(row[name] for name in names) for row in predictions(path)]


def generated(out: str) -> int:
    """How many prompts a verb said that it answers."""
    words = [line.split(": ")[1].split()[0] for line in out.splitlines() if " prompts for " in line]
    return sum(map(int, words))


def test_every_point_is_answered_once_and_scored(evaluated: Path) -> None:
    pools = list(read_pools(data_paths(evaluated / "data").pools["test"]))
    settings = EvaluationSettings.model_validate_json(json.dumps(tiny_settings(Path())["evaluation"]))
    for number, kind in enumerate(("base", "tuned")):
        wanted = [point.key for found in pools for point in points(found, [settings.systems[number]], settings)]
        assert sorted(keys(stores(evaluated)[kind])) == sorted(wanted)
    for row in predictions(stores(evaluated)["base"]):
        assert len(row["shown"]) == row["passages"]
        assert 0 <= row["output_tokens"] <= 4
        assert row["failure"] is None
    assert json.loads((evaluated / "evaluation" / "scores.json").read_text())["partial"] is False


def test_the_prompts_that_were_answered_are_those_of_training(evaluated: Path, tiny_weights: Path) -> None:
    from transformers import AutoTokenizer

    from data_builders.records import Passage
    from rag_ft.prompting.encode import Encoder
    from rag_ft.prompting.settings import PromptSettings

    one = Encoder(AutoTokenizer.from_pretrained(tiny_weights), PromptSettings(), {})
    pools = {found.id: found for found in read_pools(data_paths(evaluated / "data").pools["test"])}
    for row in predictions(stores(evaluated)["tuned"]):
        found = pools[row["question_id"]]
        texts = {passage.id: Passage(passage.id, passage.title, passage.text) for passage in found.passages}
        prompt = one.prompt(found.question, [texts[name] for name in row["shown"]])
        assert row["prompt_tokens"] == sum(map(len, prompt))


def test_a_second_evaluation_asks_nothing(evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb) -> None:
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    before = {kind: path.read_bytes() for kind, path in stores(tmp_path / "runs" / "tiny").items()}
    code, out, _ = run_verb("evaluate", recipe)
    assert (code, generated(out)) == (0, 0)
    assert {kind: path.read_bytes() for kind, path in stores(tmp_path / "runs" / "tiny").items()} == before


def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(
    trained_run: Path, evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    slow = ["evaluation.batch_size=1", "evaluation.max_new_tokens=48"]
    folder = tmp_path / "runs" / "tiny" / "evaluation" / "predictions"
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_ft", "evaluate", str(recipe), *slow],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not any(
        len(path.read_bytes().splitlines()) > 1 for path in folder.glob("*.jsonl")
    ):
        time.sleep(0.001)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -9, errors
    kept = {}
    for path in folder.glob("*.jsonl"):
        whole = path.read_bytes()
        kept[path] = whole[: whole.rindex(b"\n") + 1]
        path.write_bytes(kept[path] + b'{"question_id": "half-writ')  # what a kill in the middle of a line leaves
    answered = sum(len(text.splitlines()) - 1 for text in kept.values())
    assert 0 < answered < 32
    code, out, _ = run_verb("evaluate", recipe, *slow)
    assert code == 0
    assert generated(out) == 32 - answered
    assert all(path.read_bytes().startswith(text) for path, text in kept.items())
    for kind, store in stores(tmp_path / "runs" / "tiny").items():
        assert len(set(keys(store))) == len(keys(store)) == 16
        assert sorted(keys(store)) == sorted(keys(stores(evaluated)[kind]))


def test_another_adapter_has_its_own_answers(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    run = tmp_path / "runs" / "tiny"
    before = stores(run)
    file = run / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 3 for name, tensor in load_file(file).items()}, file)
    code, out, _ = run_verb("evaluate", recipe)
    assert (code, generated(out)) == (0, 16)
    after = set((run / "evaluation" / "predictions").glob("tuned-*.jsonl"))
    assert len(after) == 2
    assert before["tuned"] in after
    assert len(list((run / "evaluation" / "predictions").glob("base-*.jsonl"))) == 1


def test_a_longer_sweep_asks_only_what_is_new(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    run = tmp_path / "runs" / "tiny"
    before = {kind: path.read_bytes() for kind, path in stores(run).items()}
    code, out, _ = run_verb("evaluate", recipe, "evaluation.passages=[1,2,3]", "evaluation.confidence=0.9")
    assert (code, generated(out)) == (0, 8)  # 4 questions, 2 systems, 1 new count
    assert all(path.read_bytes().startswith(before[kind]) for kind, path in stores(run).items())
    assert run_verb("evaluate", recipe, "evaluation.passages=[2]")[1].count("unchanged") == 2
    scores = json.loads((run / "evaluation" / "scores.json").read_text())
    assert {cell["passages"] for cell in scores["cells"] if cell["gold"] == "kept"} == {2}


def test_stored_answers_are_scored_by_what_counts_as_evidence_now(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    run = tmp_path / "runs" / "tiny"
    before = json.loads((run / "evaluation" / "scores.json").read_text())["cells"]
    for path in stores(run).values():
        first, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        flipped = [{**row, "answerable": not row["answerable"]} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in (first, *flipped)), encoding="utf-8")
    code, out, err = run_verb("evaluate", recipe)
    assert (code, generated(out)) == (0, 0), err
    assert json.loads((run / "evaluation" / "scores.json").read_text())["cells"] == before


def test_a_system_that_keeps_its_name_but_shows_other_passages_is_asked_again(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    systems = json.dumps(
        [{"name": "base", "weights": "base"}, {"name": "tuned", "weights": "tuned", "strategy": "reorder"}]
    )
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    changes = ["evaluation.passages=[1,2,3]"]
    assert run_verb("evaluate", recipe, *changes)[0] == 0
    code, out, _ = run_verb("evaluate", recipe, *changes, f"evaluation.systems={systems}")
    assert (code, generated(out)) == (0, 4)  # three passages come in another order; one and two do not
    store = stores(tmp_path / "runs" / "tiny")["tuned"]
    assert len(keys(store)) - len(set(keys(store))) == 4
    assert generated(run_verb("evaluate", recipe, *changes)[1]) == 0


def test_an_adapter_is_not_asked_under_another_prompt(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    contract = tmp_path / "runs" / "tiny" / "adapter" / "prompt.json"
    hashed = json.loads(contract.read_text())["prompt_hash"]  # stands there by its style, too
    contract.write_text(contract.read_text().replace(hashed, f"0{hashed}"))
    code, _, err = run_verb("evaluate", recipe)
    assert code == 2
    assert "was trained with prompt_hash 0" in err
    assert "evaluation.allow_prompt_mismatch=true" in err
    assert run_verb("evaluate", recipe, "evaluation.allow_prompt_mismatch=true")[0] == 0


def test_a_limit_stamps_the_scores_as_partial(
    trained_run: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    code, out, _ = run_verb("evaluate", recipe, "--limit", 1)
    assert (code, generated(out)) == (0, 8)
    assert "PARTIAL" in out.upper()
    scores = tmp_path / "runs" / "tiny" / "evaluation" / "scores.json"
    assert json.loads(scores.read_text())["partial"] is True
    rows = [json.loads(line) for line in (scores.parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    rows += json.loads((scores.parent / "examples.json").read_text(encoding="utf-8"))
    assert len(rows) > 8
    assert all(row["partial"] is True for row in rows)
    code, out, _ = run_verb("evaluate", recipe)
    assert (code, generated(out)) == (0, 24)
    assert json.loads(scores.read_text())["partial"] is False


def test_answers_from_before_there_were_variants_are_still_read(
    evaluated: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    """Their fields, and the file's name by what decided an answer then."""
    recipe = copied_run(tmp_path, tiny_weights, evaluated)
    run = tmp_path / "runs" / "tiny"
    found = next(one for one in read_pools(data_paths(run / "data").pools["test"]))
    contract = json.loads((run / "adapter" / "prompt.json").read_text())
    weights = resolve_weights(str(tiny_weights)).identity
    hashes = [contract["prompt_hash"], contract["chat_template_hash"]]
    pools_hash = file_hash(data_paths(run / "data").pools["test"])
    fingerprint = content_hash([pools_hash, weights, None, *hashes, "float32", "auto", 4])
    file = run / "evaluation" / "predictions" / f"base-{fingerprint}.jsonl"
    file.write_text(
        f'{{"fingerprint": "{fingerprint}"}}\n'
        f'{{"question_id": "{found.id}", "group": "", "system": "base", "gold": "closed_book", "passages": 0, '
        '"shown": [], "answerable": false, "answers": ["it"], "output": "it\\n", "answer": "it", "abstained": false, '
        '"prompt_tokens": 40, "output_tokens": 2, "seconds": 0.5, "failure": null}\n'
    )
    code, out, err = run_verb("evaluate", recipe)
    assert code == 0, err
    assert generated(out) == 15  # of the base model; the tuned one has all its answers
    rows = [json.loads(line) for line in (run / "evaluation" / "answers.jsonl").read_text().splitlines()]
    [kept] = [row for row in rows if row["seconds"] == 0.5]
    assert (kept["question_id"], kept["answer"], kept["variant"]) == (found.id, "it", "")
    assert (kept["confidence"], kept["route"], kept["accuracy"]) == (None, "", 1)
