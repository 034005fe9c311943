"""What Ollama and llama.cpp are told so that they ask a GGUF as it was trained: a Modelfile and a page. Runs neither.

Ollama reads no chat template out of a GGUF but guesses among its own, so the Modelfile writes it out in Go's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_builders.errors import RagFtError
from data_builders.records import Passage
from rag_ft.prompting.frame import ChatFrame

MODELFILE = "Modelfile"
# Ollama adds SYSTEM to every request without a system message, also to one whose question begins with the instruction
# because it was written for a template without a system role, as load_generator does for any server.
_UNLESS_TOLD = "{{ if and .System (or (lt (len .Prompt) (len .System)) (ne (slice .Prompt 0 (len .System)) .System)) }}"
EXAMPLE = (
    "Which river runs through Odense?",
    (
        Passage("1", "Aarhus", "Aarhus lies on the east coast of Jutland. The river Aarhus runs through it."),
        Passage("2", "Odense", "Odense is the largest town of Funen. The river Odense runs through it."),
    ),
)
"""A question and passages to show how one is written."""


@dataclass(frozen=True)
class Served:
    """A GGUF and how it is asked.

    Attributes:
        name: what Ollama calls the model.
        file: name of the GGUF.
        frame: what the chat template writes around messages.
        system: the instruction.
        example: a user's message: `EXAMPLE` as the renderer writes it.
        end: the text of the token that ends an answer.
        context: longest prompt with answer, in tokens.
        answer: longest answer, in tokens.
    """

    name: str
    file: str
    frame: ChatFrame
    system: str
    example: str
    end: str
    context: int
    answer: int


def write_modelfile(served: Served, folder: Path) -> None:
    """Write the Modelfile of Ollama.

    Raises:
        RagFtError: the instruction or the template holds three quotation marks, which end a text there.
    """
    lines = [
        f"FROM ./{served.file}",
        f"TEMPLATE {_quoted(go_template(served.frame))}",
        f"SYSTEM {_quoted(served.system)}",
        f"PARAMETER stop {_escaped(served.end)}",
        "PARAMETER temperature 0",
        # the default, 1.1, makes words of the prompt less likely: an answer is made of them
        "PARAMETER repeat_penalty 1.0",
        f"PARAMETER num_ctx {served.context}",
        f"PARAMETER num_predict {served.answer}",
    ]
    (folder / MODELFILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def go_template(frame: ChatFrame) -> str:
    """Return the chat template of one question in the language of Go's text/template, as Ollama fills it in."""
    before, between, tail = (
        text.replace("{{", '{{ "{{" }}') for text in (frame.before, frame.between, frame.tail + frame.lead)
    )
    if frame.system_role:
        with_system = f"{before}{{{{ .System }}}}{between}{{{{ .Prompt }}}}{tail}"
    else:
        with_system = f"{before}{_UNLESS_TOLD}{{{{ .System }}}}{between}{{{{ end }}}}{{{{ .Prompt }}}}{tail}"
    return f"{with_system}{{{{ .Response }}}}"


def _quoted(text: str) -> str:
    if '"""' in text:
        raise RagFtError(
            'export gguf: the prompt holds """, which ends a text in a Modelfile. Take the marks out of '
            "model.prompt.abstention and train again, or take `rag-ft export RECIPE merged`."
        )
    return f'"""{text}"""'


def _escaped(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_guide(served: Served, folder: Path) -> None:
    """Write USE.md: the commands for Ollama and llama.cpp, and how a question is written."""
    place = (
        "The system message is the instruction it was trained with, and Ollama has it from the Modelfile"
        if served.frame.system_role
        else "Its chat template has no system role: the instruction stands in front of each question, on a line of its "
        "own. Ollama puts it there from the Modelfile, llama.cpp does not"
    )
    (folder / "USE.md").write_text(
        f"""# Asking {served.name}

In this folder: `{served.file}` with weights, tokenizer and chat template; `{MODELFILE}` for Ollama; `prompt.json`, how
it was asked in training.

With Ollama:

```sh
ollama create {served.name} -f {MODELFILE}
ollama run {served.name}
```

With llama.cpp (its server speaks the OpenAI protocol; `--jinja` takes the chat template out of the file):

```sh
llama-server -m {served.file} --alias {served.name} --jinja --ctx-size {served.context} --temp 0 \\
  --repeat-penalty 1.0 --port 8080
```

In Python through either of them (Ollama listens at http://127.0.0.1:11434/v1); prompts are written as in training, and
control tokens are taken out of passages:

```python
from rag_ft import load_generator

generator = load_generator(".", server="http://127.0.0.1:8080/v1", model="{served.name}")
print(generator.answer("Which river runs through Odense?", [{{"title": "Odense", "text": "..."}}]).answer)
```

Asked without rag-ft:

{place}:

```
{served.system}
```

A question is one message of the user:

```
{served.example}
```

It answers in at most {served.answer} tokens and stops with `{served.end}`. Each call asks one question: it was not
trained on conversations that go on. Passages are untrusted text: take the control tokens (`prompt.json` lists them) out
of them first, as rag-ft does.
""",
        encoding="utf-8",
    )
