"""Labels by the student's own base model, and the rules that keep recipes with written labels in order."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_model import tiny_tokenizer

from data_builders.errors import RagFtError
from data_builders.labels.settings import SelfSynthesisLabelsSettings
from data_builders.servers import Call
from data_builders.tables import read_context_rows
from rag_ft.labelling import local_writer
from rag_ft.models import load
from rag_ft.models.settings import ModelSettings
from rag_ft.recipe.load import load_recipe


def settings(weights: Path) -> SelfSynthesisLabelsSettings:
    told = {"kind": "self_synthesis", "weights": str(weights), "max_new_tokens": 16, "batch_size": 2}
    return SelfSynthesisLabelsSettings.model_validate(told)


def greedy(model: Any, messages: list[dict[str, str]], begun: str = "") -> str:
    """Decode as plainly as can be: one token after the other, no cache."""
    tokenizer = tiny_tokenizer()
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text + begun, add_special_tokens=False)["input_ids"]
    written: list[int] = []
    with torch.no_grad():
        while len(written) < 16:
            token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            written.append(token)
    return str(tokenizer.decode(written, skip_special_tokens=True))


def test_conversations_are_answered_as_the_model_does_and_kept(
    tmp_path: Path, tiny_weights: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        [{"role": "user", "content": "When was Aldo founded?"}],
        [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Berin"},
            {"role": "user", "content": "Mend it."},
        ],
        [{"role": "user", "content": "The flag of the town"}],
    ]
    calls = [Call(str(number), tuple(messages)) for number, messages in enumerate(told)]
    make = local_writer(ModelSettings(weights=str(tiny_weights), dtype="float32"))
    lines: list[str] = []
    asker = make(settings(tiny_weights), tmp_path / "replies.sqlite", lines.append, 3)
    first = {call.key: reply for call, reply in asker(calls)}
    assert {key: reply.text for key, reply in first.items()} == {
        str(number): greedy(tiny_llama, messages) for number, messages in enumerate(told)
    }
    assert any("is loaded to write 3 labels" in line for line in lines)

    def forbidden(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("loaded although every reply is kept")

    monkeypatch.setattr(load, "load_model", forbidden)
    again = make(settings(tiny_weights), tmp_path / "replies.sqlite", lines.append, 3)
    assert {call.key: reply for call, reply in again(calls)} == first


def test_a_reply_goes_on_from_what_it_is_begun_with(tmp_path: Path, tiny_weights: Path, tiny_llama: Any) -> None:
    messages = [{"role": "user", "content": "When was Aldo founded?"}]
    calls = [Call(str(number), tuple(messages), begun=begun) for number, begun in enumerate(("", "[1] yes: It"))]
    make = local_writer(ModelSettings(weights=str(tiny_weights), dtype="float32"))
    plain, begun = (reply.text for _, reply in make(settings(tiny_weights), tmp_path / "s.sqlite", print, None)(calls))
    assert plain == greedy(tiny_llama, messages)
    assert begun == "[1] yes: It" + greedy(tiny_llama, messages, "[1] yes: It")


def test_control_tokens_in_a_passage_end_no_turn(tmp_path: Path, tiny_weights: Path, tiny_llama: Any) -> None:
    make = local_writer(ModelSettings(weights=str(tiny_weights), dtype="float32"))
    asker = make(settings(tiny_weights), tmp_path / "replies.sqlite", lambda line: None, None)
    call = Call("a", ({"role": "user", "content": "Aldo <|im_end|> Bexa"},))
    ((_, reply),) = asker([call])
    broken = [{"role": "user", "content": "Aldo < |im_end|> Bexa"}]
    assert reply.text == greedy(tiny_llama, broken)


@pytest.mark.usefixtures("tiny")
def test_what_a_small_model_cannot_write_gets_the_label_of_the_annotations(
    tmp_path: Path, tiny_weights: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    labels = {**settings(tiny_weights).model_dump(mode="json"), "style": "reasoning", "rejected": "gold", "attempts": 1}
    told = {
        "name": "own",
        "runs_dir": str(tmp_path),
        "data": {"contexts": {"passages": {"kind": "fixed", "count": 2}}, "labels": labels, "processes": 1},
        "model": {"weights": str(tiny_weights), "dtype": "float32", "prompt": {"style": "reasoning"}},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(told))
    assert "20 written here" in run_verb("build", path, "--dry-run")[1]
    code, out, err = run_verb("build", path)
    assert code == 0, err
    data = tmp_path / "own/data"
    rows = list(read_context_rows(data / "labels/train.parquet"))
    labelled = [asked for row in rows for asked in row.questions if asked.label is not None]
    # it comes to no answer; that it calls passages irrelevant which are, nobody can hold against it
    assert {asked.label_source for asked in labelled if asked.label and asked.label.answer is not None} == {"gold"}
    assert len(rows) == 13
    assert "13" in out
    assert replies(tmp_path) == 20


def replies(runs: Path) -> int:
    """Return how many answers are kept."""
    with sqlite3.connect(runs / "own/data/replies/labels.sqlite") as store:
        return int(store.execute("SELECT count(*) FROM replies").fetchone()[0])


@pytest.mark.usefixtures("tiny")
def test_labels_are_written_anew_when_what_decides_the_writers_words_changes(
    tmp_path: Path, tiny_weights: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    labels = {**settings(weights).model_dump(mode="json"), "style": "reasoning", "rejected": "gold", "attempts": 1}
    told = {
        "name": "own",
        "runs_dir": str(tmp_path),
        "data": {"contexts": {"passages": {"kind": "fixed", "count": 2}}, "labels": labels, "processes": 1},
        "model": {"weights": str(weights), "dtype": "float32", "prompt": {"style": "reasoning"}},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(told))

    def built(*overrides: str) -> str:
        code, out, err = run_verb("build", path, *overrides)
        assert code == 0, err
        return next(line for line in out.splitlines() if line.startswith("labels:"))

    anew = "labels: building (what writes changed: weights, or a key of model)"
    assert built() == "labels: building (not built yet)"
    assert built("data.labels.batch_size=3", "model.lora.rank=4") == "labels: unchanged"
    assert built("model.dtype=bfloat16") == anew
    assert replies(tmp_path) == 40
    assert built("model.dtype=bfloat16") == "labels: unchanged"
    assert built("model.revision=abc") == anew
    assert built() == anew
    assert replies(tmp_path) == 40  # a folder has no revisions, and both types were asked before
    (weights / "config.json").touch()
    assert built() == anew
    assert replies(tmp_path) == 40  # the same bytes


REASONING = "model: {prompt: {style: reasoning}}"
TEACHER = "kind: teacher, endpoint: {base_url: http://x/v1, model: m"
BROKEN = {
    "a label without what is trained": (
        f"data: {{labels: {{{TEACHER}}}, style: reasoning}}}}\nmodel: {{prompt: {{style: self_reasoning}}}}",
        "set data.labels.style=self_reasoning",
    ),
    "a label nobody sees": (f"data: {{labels: {{{TEACHER}}}}}}}", "set model.prompt.style=self_reasoning"),
    "money without prices": (
        f"data: {{labels: {{{TEACHER}, input_price: 1, budget: {{money: 5}}}}}}}}\n{REASONING}",
        "set data.labels.endpoint.output_price",
    ),
    "a template that is not there": (
        f"data: {{labels: {{{TEACHER}}}, template: no.txt}}}}\n{REASONING}",
        "no.txt: No such file",
    ),
    "bounds that cross": (
        f"data: {{labels: {{{TEACHER}}}, gates: {{length: {{least: 9, most: 4}}}}}}}}\n"
        "model: {prompt: {style: reasoning}}",
        "raise most, or lower least",
    ),
    "a model that is none": (
        f"data: {{labels: {{{TEACHER}}}, gates: {{support: {{model: nli}}}}}}}}\n{REASONING}",
        '"nli" is neither a folder nor a Hub id',
    ),
    "a model that is loaded from nowhere": (
        f"data: {{labels: {{{TEACHER}}}, gates: {{support: {{model: package:nli}}}}}}}}\n{REASONING}",
        '"package:nli" is neither a folder nor a Hub id',
    ),
    "no weights": (
        'data: {labels: {kind: self_synthesis, weights: " "}}\nmodel: {prompt: {style: reasoning}}',
        "write the weights",
    ),
}


@pytest.mark.parametrize(("text", "told"), BROKEN.values(), ids=BROKEN)
def test_a_recipe_whose_labels_cannot_be_used_or_asked_for_is_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\n{text}\n")
    with pytest.raises(RagFtError) as caught:
        load_recipe(path)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1, caught.value


ADDRESSED = {
    "labels": "data: {labels: {kind: teacher, endpoint: {base_url: URL, model: m}}}\n"
    "model: {prompt: {style: self_reasoning}}",
    "questions": "data: {questions: {kind: teacher, endpoint: {base_url: URL, model: m}}}",
    "judge": "evaluation: {judge: {endpoint: {base_url: URL, model: m}}}",
    "systems": "evaluation: {systems: [{name: other, endpoint: {base_url: URL, model: m}}]}",
}


@pytest.mark.parametrize("where", ADDRESSED)
@pytest.mark.parametrize("url", ["http://me:sesame@x/v1", "http://x/v1?key=sesame"])
def test_an_address_with_a_key_is_refused_before_anything_is_written(where: str, url: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\n{ADDRESSED[where].replace('URL', 'http://x/v1')}\n")
    load_recipe(path)
    path.write_text(f"name: x\n{ADDRESSED[where].replace('URL', json.dumps(url))}\n")
    with pytest.raises(RagFtError, match="the key in the environment variable OPENAI_API_KEY") as caught:
        load_recipe(path)
    assert "sesame" not in str(caught.value)


def test_labels_with_more_than_the_prompt_shows_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\ndata: {{labels: {{{TEACHER}}}}}}}\nmodel: {{prompt: {{style: reasoning}}}}\n")
    assert load_recipe(path).data.labels.kind == "teacher"
