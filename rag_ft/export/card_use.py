"""How to use what lies in a folder, as text to copy: rag-ft, PEFT, vLLM, llama.cpp, Ollama. Runs nothing.

Every snippet asks one example question, with the prompt that the renderer writes for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from shlex import quote
from typing import Any

from rag_ft.export.card_facts import CardFacts, Form, local_name
from rag_ft.export.ollama import EXAMPLE
from rag_ft.prompting.frame import ChatFrame
from rag_ft.prompting.render import render_prompt
from rag_ft.report.markdown import code_block, escape

QUESTION, PASSAGES = EXAMPLE
VLLM, OLLAMA, LLAMA_CPP = "http://127.0.0.1:8000/v1", "http://127.0.0.1:11434/v1", "http://127.0.0.1:8080/v1"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # --max-lora-rank of vLLM takes one of these
_NOTE = (
    "Write your own question and passages in the same shape. Passages are untrusted text: take the tokenizer's "
    "special tokens out of them first, as `load_generator` does."
)


def use(facts: CardFacts) -> str:
    """Return the section: each way under a head of its own, the shortest first."""
    return "\n\n".join([*(way(facts) for way in _WAYS[facts.form]), _NOTE])


def messages_of(facts: CardFacts) -> list[dict[str, str]]:
    """Return the example's prompt as chat messages, as `Encoder.messages` writes them."""
    prompt = render_prompt(QUESTION, PASSAGES, facts.prompt)
    return ChatFrame("", "\n", "", "", "", facts.system_role).messages(prompt.system, prompt.user)


_RAG_FT = """\
from rag_ft import load_generator

generator = load_generator({arguments})
passages = [
{passages}
]
answer = generator.answer({question}, passages)
print(answer.answer, answer.citations)"""


def _rag_ft(facts: CardFacts) -> str:
    base = f", base={_text(_base(facts))}" if facts.form == "adapter" and facts.base_model is None else ""
    return _load_generator(facts, f"{_text(_place(facts))}{base}")


def _rag_ft_server(facts: CardFacts) -> str:
    return _load_generator(facts, f'{_text(_place(facts))}, server="{LLAMA_CPP}", model="{facts.slug}"')


def _load_generator(facts: CardFacts, arguments: str) -> str:
    lines = [f'    {{"title": {_text(one.title)}, "text": {_text(one.text)}}},' for one in PASSAGES]
    code = _RAG_FT.format(arguments=arguments, passages="\n".join(lines), question=_text(QUESTION))
    about = "It writes the prompt, and reads answer, quotes and abstention back:"
    return f"### rag-ft\n\n{about}\n\n{code_block(code, 'python')}"


_LOAD_MODEL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {place}{note}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")"""
_LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = {base}
adapter = {place}{note}
tokenizer = AutoTokenizer.from_pretrained(adapter)  # with the chat template of training
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{revision}, dtype="auto"), adapter)"""
_GENERATE = """\
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{extra}
)
output = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _transformers(facts: CardFacts) -> str:
    revision = f", revision={_text(facts.revision)}" if facts.revision and facts.base_model else ""
    extra = f", **{dict(facts.chat_template_kwargs)!r}" if facts.chat_template_kwargs else ""
    note = "" if facts.repo else "  # this folder, or its id on the Hub"
    adapter = facts.form == "adapter"
    load = (_LOAD_ADAPTER if adapter else _LOAD_MODEL).format(
        base=_text(_base(facts)), revision=revision, place=_text(_place(facts)), note=note
    )
    generate = _GENERATE.format(extra=extra, tokens=facts.max_new_tokens)
    code = "\n\n".join([load, _messages_in_python(facts), generate])
    return f"### {'PEFT' if adapter else 'Transformers'}\n\n{code_block(code, 'python')}"


def _messages_in_python(facts: CardFacts) -> str:
    lines = [f'    {{"role": {_text(one["role"])}, "content": {_text(one["content"])}}},' for one in messages_of(facts)]
    return "\n".join(["messages = [", *lines, "]"])


def _vllm(facts: CardFacts) -> str:
    if facts.form == "adapter" and facts.vllm_refuses:
        why = escape("; ".join(facts.vllm_refuses))
        return (
            f"### vLLM\n\nIt does not serve this as an adapter: {why}. Merge it first: `rag-ft export RECIPE merged` "
            "writes a folder that vLLM serves as it is."
        )
    fetch, here = _fetched(facts)
    told = "\n".join([*fetch, _vllm_adapter(facts, here) if facts.form == "adapter" else _vllm_model(facts, here)])
    return f"### vLLM\n\n{code_block(told, 'sh')}\n\n{code_block(_client(facts, VLLM), 'python')}"


def _vllm_adapter(facts: CardFacts, here: str) -> str:
    rank = next((each for each in _RANKS if each >= facts.rank), _RANKS[-1])
    revision = f" --revision {quote(facts.revision)}" if facts.revision and facts.base_model else ""
    return (
        f"vllm serve {quote(_base(facts))}{revision} --enable-lora --max-lora-rank {rank} \\\n"
        f"  --lora-modules {facts.slug}={here} --chat-template {here}/chat_template.jinja --port 8000"
    )


def _vllm_model(facts: CardFacts, here: str) -> str:
    template = f"{here}/chat_template.jinja"
    return f"vllm serve {here} --served-model-name {facts.slug} --chat-template {template} --port 8000"


_CLIENT = """\
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key="none")
{messages}
reply = client.chat.completions.create(
    model={model}, messages=messages, max_tokens={tokens}, temperature=0{extra}
)
print(reply.choices[0].message.content)"""


def _client(facts: CardFacts, url: str) -> str:
    kwargs = {"chat_template_kwargs": dict(facts.chat_template_kwargs)}
    return _CLIENT.format(
        url=url,
        messages=_messages_in_python(facts),
        model=_text(facts.slug),
        tokens=facts.max_new_tokens,
        extra=f", extra_body={kwargs!r}" if facts.chat_template_kwargs else "",
    )


def _ollama(facts: CardFacts) -> str:
    fetch, here = _fetched(facts)
    text = ""
    if facts.form != "gguf":
        fetch, here = ["rag-ft export RECIPE gguf"], f"runs/{facts.slug}/export/gguf"
        text = "Ollama takes GGUF, which rag-ft makes of the run that this was trained in:\n\n"
    made = code_block("\n".join([*fetch, f"cd {here}", f"ollama create {facts.slug} -f Modelfile"]), "sh")
    return f"### Ollama\n\n{text}{made}\n\n{_asked_with_curl(facts, OLLAMA)}"


def _llama_cpp(facts: CardFacts) -> str:
    fetch, here = _fetched(facts)
    file = next(iter(facts.files), "model.gguf")
    lines = [*fetch, f"llama-server -m {here}/{quote(file)} --alias {facts.slug} --jinja --port 8080"]
    return f"### llama.cpp\n\n{code_block(chr(10).join(lines), 'sh')}"


def _asked_with_curl(facts: CardFacts, url: str) -> str:
    # the Modelfile's template puts the instruction where it belongs, also where the model's own has no system role
    messages = messages_of(replace(facts, system_role=True))
    body: dict[str, Any] = {"model": facts.slug, "messages": messages}
    body |= {"max_tokens": facts.max_new_tokens, "temperature": 0}
    told = json.dumps(body, ensure_ascii=False, indent=1)
    code = f"curl -s {url}/chat/completions -H 'Content-Type: application/json' -d @- <<'JSON'\n{told}\nJSON"
    return code_block(code, "sh")


def _text(text: str) -> str:
    """Return a text as Python and JSON both write it."""
    return json.dumps(text, ensure_ascii=False)


def _place(facts: CardFacts) -> str:
    return facts.repo or "."


def _base(facts: CardFacts) -> str:
    return facts.base_model or f"path/to/{local_name(facts.weights)}"


def _fetched(facts: CardFacts) -> tuple[list[str], str]:
    """Return the commands that bring the folder here, and where it lies then."""
    if facts.repo is None:
        return [], "."
    name = facts.repo.partition("/")[2]
    return [f"hf download {facts.repo} --local-dir {name}"], f"./{name}"


_WAYS: Mapping[Form, tuple[Callable[[CardFacts], str], ...]] = {
    "adapter": (_rag_ft, _transformers, _vllm, _ollama),
    "full": (_rag_ft, _transformers, _vllm, _ollama),
    "merged": (_rag_ft, _transformers, _vllm, _ollama),
    "gguf": (_ollama, _llama_cpp, _rag_ft_server),
}
