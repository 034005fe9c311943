"""Hybrid training: some rows ask for the answer alone, the others for reasoning; one adapter does both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from test_stages import GRADUAL, gradual_recipe
from token_rows import encoder, row

from data_builders.errors import RagFtError
from data_builders.records import ContextRow
from data_builders.tables import write_records
from rag_ft.prompting.contract import check_contract, contract_of
from rag_ft.recipe.load import load_recipe
from rag_ft.training.dataset import Draw, draw_of, drawn_rows, token_rows
from rag_ft.training.rows import encode_row
from rag_ft.training.stages import planned_stages

Verb = Callable[..., tuple[int, str, str]]


def test_hybrid_rows_are_written_as_either_style_writes_them(tmp_path: Path) -> None:
    rows = [ContextRow(f"r{number}", row(2, [0]).passages, row(2, [0]).questions) for number in range(60)]
    write_records(tmp_path / "rows.parquet", ContextRow, rows)
    one = encoder()
    spans = ("relevance", "evidence", "analysis", "answer", "end")
    found = token_rows(tmp_path / "rows.parquet", one, 4096, spans, Draw(seed=3, direct_share=0.4))
    direct = [tokens for tokens in found.tokens if tokens.style == "answer"]
    assert 12 <= len(direct) <= 36
    assert found.counts["direct_rows"] == len(direct)
    assert {tokens.input_ids for tokens in direct} == {encode_row(rows[0], encoder(style="answer")).input_ids}
    others = {tokens.input_ids for tokens in found.tokens if tokens.style == "self_reasoning"}
    assert others == {encode_row(rows[0], one).input_ids}
    again = drawn_rows(reversed(rows), Draw(seed=3, direct_share=0.4), "self_reasoning", Counter())
    assert {each.id for each, style in again if style == "answer"} == {tokens.id for tokens in direct}


def test_no_row_asks_for_the_answer_alone_before_the_answer_is_trained(
    tiny_weights: Path, built_data: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(gradual_recipe(tmp_path, tiny_weights, built_data, stages=GRADUAL, direct_share=0.5))
    shares = [draw_of(recipe, stage).direct_share for stage in planned_stages(recipe.training, tmp_path)]
    assert shares == [0, 0, 0.5]


def test_a_hybrid_adapter_may_be_asked_in_both_styles_and_in_no_third(tmp_path: Path) -> None:
    contract_of(encoder(), {}, ("answer",)).write(tmp_path)
    check_contract(tmp_path, contract_of(encoder(), {}))
    check_contract(tmp_path, contract_of(encoder(style="answer"), {}))
    with pytest.raises(RagFtError, match="trained with prompt_hash"):
        check_contract(tmp_path, contract_of(encoder(style="reasoning"), {}))
    contract_of(encoder(), {}).write(tmp_path)
    with pytest.raises(RagFtError, match="trained with prompt_hash"):
        check_contract(tmp_path, contract_of(encoder(style="answer"), {}))


def test_a_contract_of_an_older_adapter_still_counts(tmp_path: Path) -> None:
    contract_of(encoder(), {}).write(tmp_path)
    written = json.loads((tmp_path / "prompt.json").read_text())
    del written["prompt_hashes"]
    (tmp_path / "prompt.json").write_text(json.dumps(written))
    check_contract(tmp_path, contract_of(encoder(), {}))
    with pytest.raises(RagFtError, match="trained with prompt_hash"):
        check_contract(tmp_path, contract_of(encoder(style="answer"), {}))


def test_hybrid_training_records_both_prompts(
    tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = gradual_recipe(tmp_path, tiny_weights, built_data, "reasoning", direct_share=0.5)
    code, out, err = run_verb("train", recipe)
    assert code == 0, err
    assert "hybrid: " in out
    contract = json.loads((tmp_path / "runs/tiny/adapter/prompt.json").read_text())
    assert list(contract["prompt_hashes"]) == ["reasoning", "answer"]
    code, out, _ = run_verb("inspect", recipe, "-n", 12)
    assert (
        out.count("style answer\n")
        == json.loads((tmp_path / "runs/tiny/training/summary.json").read_text())["direct_rows"]
    )
    assert out.count("style answer\n") + out.count("style reasoning\n") == 12
