"""`rag-ft export gguf`: what llama.cpp and transformers read out of the file is what the adapter answers."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from gguf_runs import RUNS, family_run, family_tokenizer
from peft import PeftModel
from tiny_model import WORDS, leftovers, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from rag_ft.export.compare import logits_of, probes
from rag_ft.export.gguf import type_of
from rag_ft.export.gguf_model import family_of, neighbours
from rag_ft.export.gguf_tokenizer import add_tokenizer, read_tokenizer, tokenizer_of_gguf
from rag_ft.export.ollama import go_template
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.frame import ChatFrame, chat_frame
from rag_ft.prompting.settings import PromptSettings

Verb = Callable[..., tuple[int, str, str]]
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="pip install --no-deps llama-cpp-python diskcache"
)
TEXTS = [
    "The town of Aldo was founded in 1801 by Berin.\n\n[2] It's RED,  isn't it? 12345\n",
    "대한민국의 수도는 서울이다. Ärger, naïve — 漢字 3.14/2\r\n\tx  \n",
]


@pytest.fixture(scope="module", params=RUNS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A family, its folder and its GGUF in float32, exported by the verb."""
    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("family")
    recipe = family_run(folder, request.param)
    assert main(["export", str(recipe), "gguf", "--quantisation", "f32"]) == 0
    return request.param, folder, folder / "runs/tiny/export/gguf/tiny-f32.gguf"


def encoder_of(name: str) -> Encoder:
    kwargs = {"enable_thinking": False} if name == "qwen3" else {}
    return Encoder(family_tokenizer(name), PromptSettings(), kwargs)


def adapter_of(folder: Path) -> Any:
    base = AutoModelForCausalLM.from_pretrained(folder / "weights", dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(base, folder / "runs/tiny/adapter").eval()


def same(found: list[torch.Tensor], expected: list[torch.Tensor], share: float) -> None:
    """Assert that logits differ by no more than a share of their range."""
    for one, other in zip(found, expected, strict=True):
        span = float(other.max() - other.min())
        assert float((one - other).abs().max()) <= share * span


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def test_the_file_says_how_a_conversation_is_written_and_where_it_ends(exported: tuple[str, Path, Path]) -> None:
    name, folder, file = exported
    found, encoder = fields(file), encoder_of(name)
    end = encoder.end[-1]
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.eot_token_id"] == end
    assert found["tokenizer.ggml.tokens"][end] == {"gemma2": "<end_of_turn>", "mistral": "</s>"}.get(
        name, "<|eot_id|>" if name == "llama 3" else "<|im_end|>"
    )
    assert found["tokenizer.ggml.pre"] == RUNS[name][4]
    # the template writes the first token itself: a second one would be another prompt than in training
    assert found["tokenizer.ggml.add_bos_token"] is False
    rows = GGUFReader(file).get_tensor(0).shape[1] if name != "llama 3" else len(family_tokenizer(name)) + 5
    assert len(found["tokenizer.ggml.tokens"]) == rows == len(family_tokenizer(name)) + 5
    written = family_tokenizer(name)
    asked = encoder.messages("Who?", [])
    expected = written.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **encoder.template_kwargs)
    template = found["tokenizer.chat_template"]
    assert written.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, chat_template=template) == (
        expected
    )
    assert str(folder) not in json.dumps(found)


def test_a_base_that_came_as_gguf_keeps_its_tokenizer(exported: tuple[str, Path, Path]) -> None:
    name, _, file = exported
    own = read_tokenizer(family_tokenizer(name)).fitted(len(family_tokenizer(name)) + 5)
    assert tokenizer_of_gguf(GGUFReader(file)) == own


def test_transformers_reads_the_adapters_answers_out_of_it(exported: tuple[str, Path, Path]) -> None:
    name, folder, file = exported
    asked = probes(encoder_of(name))
    # with the hyperparameters of the file alone, where transformers reads them all
    alone = name in ("llama", "mistral")
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        attn_implementation="eager",
        **({} if alone else {"config": AutoConfig.from_pretrained(folder / "weights")}),
    )
    adapter = adapter_of(folder)
    same(logits_of(model.eval(), asked), logits_of(adapter, asked), 1e-5)
    with adapter.disable_adapter(), pytest.raises(AssertionError):
        same(logits_of(model, asked), logits_of(adapter, asked), 1e-1)


@needs_llama
def test_llama_cpp_cuts_texts_as_the_tokenizer_does(exported: tuple[str, Path, Path]) -> None:
    from llama_cpp import Llama

    name, _, file = exported
    encoder, llama = encoder_of(name), Llama(str(file), vocab_only=True, verbose=False)
    asked = probes(encoder)
    prompts = [encoder.tokenizer.decode(probe.ids) for probe in asked]
    for text in [*prompts, *TEXTS]:
        assert llama.tokenize(text.encode(), add_bos=True, special=True) == list(encoder.tokenise(text)), text
    llama.close()


@needs_llama
def test_llama_cpp_answers_as_the_adapter(exported: tuple[str, Path, Path]) -> None:
    from llama_cpp import Llama

    name, folder, file = exported
    asked = probes(encoder_of(name))
    llama: Any = Llama(str(file), n_ctx=2048, logits_all=True, verbose=False, n_threads=1)
    found = []
    for probe in asked:
        llama.reset()
        llama.eval(list(probe.ids))
        found.append(torch.tensor(np.array(llama.scores[: len(probe.ids)][probe.positions])))
    llama.close()
    expected = logits_of(adapter_of(folder), asked)
    same(found, expected, 0.02)  # it keeps keys and values in float16
    agreeing = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(found, expected, strict=True))
    assert agreeing >= 0.95 * sum(map(len, expected))


@pytest.mark.parametrize("kind", ["bf16", "q8_0", "q5_1", "q4_0"])
def test_fewer_bits_make_a_smaller_file_that_answers_nearly_the_same(kind: str, tmp_path: Path, run_verb: Verb) -> None:
    recipe = family_run(tmp_path, "llama")
    code, out, err = run_verb("export", recipe, "gguf", "--quantisation", kind, "export.agreement=0.2")
    assert code == 0, out + err
    folder = tmp_path / "runs/tiny/export/gguf"
    facts = json.loads((folder / "export.json").read_text())
    share = facts["compared"]["greatest"] / facts["compared"]["span"]
    assert share < {"bf16": 0.02, "q8_0": 0.05}.get(kind, 0.6)
    assert share > 0
    assert facts["quantisation"] == kind
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(folder / f"tiny-{kind}.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == kind.upper()
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["token_embd.weight"] == (kind.upper() if kind in ("bf16", "q8_0") else "Q8_0")
    assert leftovers(tmp_path) == []


def test_rows_that_blocks_do_not_divide_keep_16_bits() -> None:
    assert type_of("blk.0.ffn_down.weight", (64, 100), "q4_0") == "F16"
    assert type_of("blk.0.ffn_down.weight", (64, 100), "f32") == "F32"


def test_a_file_that_answers_otherwise_is_deleted(tmp_path: Path, refused: Callable[..., str]) -> None:
    recipe = family_run(tmp_path, "llama")
    message = refused("export", recipe, "gguf", "--quantisation", "q4_0", "export.agreement=1")
    assert "and export.agreement asks for 100 %. Take more bits" in message
    assert "or set export.agreement=0." in message
    assert not (tmp_path / "runs/tiny/export/gguf").exists()


@needs_llama
def test_k_quants_are_made_by_llama_cpp(tmp_path: Path, run_verb: Verb) -> None:
    from llama_cpp import Llama

    recipe = family_run(tmp_path, "llama")
    told = ["--quantisation", "q4_k_m", "export.agreement=0.3"]
    code, out, err = run_verb("export", recipe, "gguf", *told)
    assert code == 0, out + err
    folder = tmp_path / "runs/tiny/export/gguf"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("Modelfile", "USE.md", "export.json", "prompt.json", "tiny-q4_k_m.gguf")
    ]
    assert fields(folder / "tiny-q4_k_m.gguf")["general.file_type"] == 15
    Llama(str(folder / "tiny-q4_k_m.gguf"), verbose=True).close()  # llama.cpp still has somebody to log to


def test_k_quants_without_llama_cpp_are_refused_before_anything_is_loaded(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("rag_ft.export.gguf.find_spec", lambda name: None if name == "llama_cpp" else find(name))
    recipe = family_run(tmp_path, "llama")
    message = refused("export", recipe, "gguf", "--quantisation", "q4_k_m")
    assert "llama-cpp-python is not installed. Install it with `pip install llama-cpp-python`" in message
    unknown = refused("export", recipe, "gguf", "--quantisation", "q3_x")
    assert "export.quantisation" in unknown


def test_what_llama_cpp_computes_otherwise_is_refused_by_name() -> None:
    from data_builders.errors import RagFtError

    def refusal(kind: str, **settings: Any) -> str:
        with pytest.raises(RagFtError) as error:
            family_of(AutoConfig.for_model(kind, **settings))
        assert "Take `rag-ft export RECIPE merged`, then convert_hf_to_gguf.py" in str(error.value)
        return str(error.value)

    assert "models of type gpt2 are not written here, only llama, mistral, qwen2, qwen3, gemma2." in refusal("gpt2")
    assert "rope_type dynamic" in refusal(
        "llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    assert "rope_type llama3" in refusal("qwen3", rope_parameters=RUNS["llama 3"][1]["rope_parameters"])
    assert "a scale of attention of its own" in refusal("gemma2", query_pre_attn_scalar=100)
    assert "an activation of its own" in refusal("llama", hidden_act="gelu_pytorch_tanh")
    assert "biases of attention" in refusal("qwen3", attention_bias=True)
    assert "no softcap of attention" in refusal("gemma2", attn_logit_softcapping=None)
    assert "windows in other layers" in refusal("gemma2", layer_types=["full_attention"] * 26)
    largest = {"num_hidden_layers": 46, "hidden_size": 4608, "num_attention_heads": 32}  # Gemma 2 27B
    assert family_of(AutoConfig.for_model("gemma2", query_pre_attn_scalar=144, **largest)).one_added


def test_a_file_has_a_piece_for_each_embedding_and_no_more(tmp_path: Path) -> None:
    whole = read_tokenizer(family_tokenizer("llama"))
    last = len(whole.tokens) - 1
    short = whole.fitted(last)  # a [PAD] was added and the embeddings were left as they were
    assert (short.tokens, short.kinds) == (whole.tokens[:-1], whole.kinds[:-1])
    ids = SimpleNamespace(bos_token_id=1, unk_token_id=None, pad_token_id=last)
    writer = GGUFWriter(tmp_path / "short.gguf", "llama")
    add_tokenizer(writer, short, ids, 0, "")
    written = writer.kv_data[0]
    assert len(written["tokenizer.ggml.tokens"].value) == last
    assert "tokenizer.ggml.padding_token_id" not in written


def test_a_rule_of_cutting_that_is_not_known_is_refused() -> None:
    from data_builders.errors import RagFtError

    with pytest.raises(RagFtError, match=r"cuts text by a rule whose name in llama\.cpp is not known here"):
        read_tokenizer(tiny_tokenizer("chatml", WORDS))


def test_values_that_rotate_together_stand_side_by_side() -> None:
    # two heads of four values: transformers rotates the first with the third, the second with the fourth
    rows = np.array(["a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"])
    assert list(neighbours(rows, 2)) == ["a1", "b1", "a2", "b2", "c1", "d1", "c2", "d2"]


# Ollama


def test_the_modelfile_writes_the_prompt_of_training(exported: tuple[str, Path, Path]) -> None:
    name, _, file = exported
    text = (file.parent / "Modelfile").read_text()
    assert text.startswith("FROM ./tiny-f32.gguf\n")
    encoder = encoder_of(name)
    frame, tokenizer = encoder.frame, encoder.tokenizer
    template = text.partition('TEMPLATE """')[2].partition('"""')[0]
    system = text.partition('SYSTEM """')[2].partition('"""')[0]
    assert system == encoder.system_text()
    filled = re.sub(r"\{\{ if .*? \}\}", "", template).replace("{{ end }}", "")
    filled = filled.replace("{{ .System }}", system).replace("{{ .Prompt }}", "Who?").replace("{{ .Response }}", "")
    asked = frame.messages(system, "Who?")
    kwargs = encoder.template_kwargs
    assert filled == tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **kwargs) + (
        frame.lead
    )
    assert f'PARAMETER stop "{tokenizer.decode(encoder.end[-1:])}"\n' in text
    assert "PARAMETER temperature 0\n" in text
    assert "PARAMETER num_ctx 2048\n" in text  # as far as the model reaches: 2048 + 4 were asked for
    assert "PARAMETER num_predict 4\n" in text


def test_braces_of_a_template_stay_braces() -> None:
    frame = ChatFrame("{{x ", "", " y", "", "", False)
    unless_told = "(or (lt (len .Prompt) (len .System)) (ne (slice .Prompt 0 (len .System)) .System))"
    written = (
        f"{{{{ if and .System {unless_told} }}}}{{{{ .System }}}}{{{{ end }}}}{{{{ .Prompt }}}} y{{{{ .Response }}}}"
    )
    assert go_template(frame) == '{{ "{{" }}x ' + written
    assert chat_frame(tiny_tokenizer(), {}).system_role


def test_the_guide_shows_a_question_as_the_renderer_writes_it(exported: tuple[str, Path, Path]) -> None:
    _, _, file = exported
    guide = (file.parent / "USE.md").read_text()
    assert "[2] Odense\nOdense is the largest town of Funen." in guide
    assert "\nQuestion: Which river runs through Odense?\n" in guide
    assert "llama-server -m tiny-f32.gguf --alias tiny --jinja --ctx-size 2048 --temp 0 \\\n" in guide
