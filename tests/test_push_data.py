"""`rag-ft push --what data`: contexts and labels as a data set that loads from the Hub's files alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import yaml
from hub_push_server import Hub, used_by_client
from tiny_model import tiny_run

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used_by_client(Hub(), monkeypatch) as served:
        yield served


@pytest.fixture
def recipe(tiny_weights: Path, built_data: Path, tmp_path: Path) -> Path:
    """A run whose data are built and that nothing was trained on."""
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run

    made = tiny_run(tmp_path, tiny_weights, built_data)
    open_run(load_recipe(made))
    return made


def arrived(hub: Hub, folder: Path, name: str = "me/rows") -> Path:
    for path, content in hub.files(name, "dataset").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_rows_load_as_they_were_built(hub: Hub, recipe: Path, run_verb: Verb, tmp_path: Path) -> None:
    from datasets import load_dataset

    code, out, err = run_verb("push", recipe, "--repo", "me/rows", "--what", "data")
    assert code == 0, out + err
    folder = arrived(hub, tmp_path / "arrived")
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    built = parquet.read_table(tmp_path / "runs/tiny/data/labels/train.parquet")
    assert list(loaded) == ["train"]  # no row is for validation, and an empty table would not load
    assert loaded["train"].to_list() == built.to_pylist()
    contexts = load_dataset(str(folder), "contexts", cache_dir=str(tmp_path / "cache"))
    assert contexts["train"].num_rows == built.num_rows == 12


def test_the_card_says_counts_hashes_sources_and_licences(
    hub: Hub, recipe: Path, run_verb: Verb, tmp_path: Path
) -> None:
    assert run_verb("push", recipe, "--repo", "me/rows", "--what", "data")[0] == 0
    files = hub.files("me/rows", "dataset")
    card = files["README.md"].decode()
    sha256 = hashlib.sha256(files["labels/train.parquet"]).hexdigest()
    assert f"| `labels/train.parquet` | 12 | `{sha256}` |" in card
    assert "| world | invented\\_world | \u2013 | apache-2.0 |" in card
    assert 'load_dataset("me/rows")' in card
    assert "a program, from the annotations of the data" in card
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["license"] == "apache-2.0"
    assert block["size_categories"] == ["n<1K"]
    assert str(tmp_path) not in card


def test_metadata_is_what_the_hub_reads(hub: Hub, recipe: Path, run_verb: Verb) -> None:
    from huggingface_hub import DatasetCard

    assert run_verb("push", recipe, "--repo", "me/rows", "--what", "data")[0] == 0
    data = DatasetCard(hub.files("me/rows", "dataset")["README.md"].decode()).data
    assert data.task_categories == ["question-answering", "text-generation"]
    assert [config["config_name"] for config in data.configs] == ["labels", "contexts"]


def test_manifests_are_sent_without_rows_of_the_data(hub: Hub, recipe: Path, run_verb: Verb) -> None:
    assert run_verb("push", recipe, "--repo", "me/rows", "--what", "data")[0] == 0
    manifest = yaml.safe_load(hub.files("me/rows", "dataset")["manifests/labels.json"])
    assert manifest["outputs"]["train.parquet"]["rows"] == 12
    assert {"excerpts", "samples"} & set(manifest) == set()


def test_data_that_are_not_those_of_the_recipe_are_refused(hub: Hub, recipe: Path, refused: Refused) -> None:
    rows = recipe.parent / "runs/tiny/data/labels/train.parquet"
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    assert "train.parquet was edited" in refused("push", recipe, "--repo", "me/rows", "--what", "data")
    assert hub.asked == []


def test_data_that_allow_no_changed_copies_are_kept_private(
    hub: Hub, recipe: Path, refused: Refused, run_verb: Verb
) -> None:
    told = ("export.data_licences={world: cc-by-nd-2.0-kr}", "--repo", "me/rows", "--what", "data")
    assert "allows no changed copies" in refused("push", recipe, *told)
    assert hub.asked == []
    assert run_verb("push", recipe, *told, "--private")[0] == 0
    assert hub.repos["dataset", "me/rows"].private


def test_a_secret_in_a_row_is_refused_by_its_row(hub: Hub, recipe: Path, tmp_path: Path) -> None:
    from rag_ft.export.push_scan import known_secrets

    source = tmp_path / "runs/tiny/data/labels/train.parquet"
    table = parquet.read_table(source)
    rows = table.to_pylist()
    secret = "AKIA" + "ABCD" * 4
    rows[7]["passages"][1]["text"] += f" The key is {secret}."
    where = tmp_path / "rows.parquet"
    parquet.write_table(type(table).from_pylist(rows, schema=table.schema), where)
    [finding] = known_secrets([]).found_in_rows(where)
    assert (finding.where, finding.what) == ("row 8", "an access key of AWS")
    assert list(known_secrets([]).found_in_rows(source)) == []


def test_nothing_built_is_told_how_to_build(hub: Hub, tiny_weights: Path, tmp_path: Path, refused: Refused) -> None:
    from tiny_model import tiny_recipe

    told = refused("push", tiny_recipe(tmp_path, tiny_weights), "--repo", "me/rows", "--what", "data")
    assert re.search(r"holds no run.*rag-ft run RECIPE", told)
