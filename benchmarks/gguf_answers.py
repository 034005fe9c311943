"""Whether a GGUF answers as the adapter it was made of: llama.cpp asked through the file's own chat template.

python -m benchmarks.gguf_answers RECIPE

RECIPE must be trained. llama-cpp-python has to be installed (`pip install --no-deps llama-cpp-python diskcache`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results_file import write_result
from rag_ft.cli import main as rag_ft
from rag_ft.export.compare import questions
from rag_ft.export.trained import Trained, find_trained
from rag_ft.generation.choose import stop_ids
from rag_ft.models.load import load_adapter, load_model
from rag_ft.recipe.load import load_recipe
from rag_ft.runs import run_folder

KINDS = ("f16", "q8_0", "q4_k_m", "q4_0")
LONGEST = 48


def main(recipe: str) -> None:
    """Export a trained recipe in every quantisation, ask adapter and files the same questions, write the results."""
    loaded = load_recipe(recipe, [])
    trained = find_trained(loaded, run_folder(loaded))
    asked = questions()
    prompts = [[token for ids in trained.encoder.prompt(q.question, shown) for token in ids] for q, shown in asked]
    first, answers = of_adapter(trained, prompts)
    numbers: dict[str, Any] = {
        "adapter": {"weights": trained.weights.reference, "style": loaded.model.prompt.style, "answers": answers},
        "right answers": [q.answers[0] for q, _ in asked],
        "versions": {name: version(name) for name in ("llama-cpp-python", "gguf")},
    }
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "gguf"
            if rag_ft(
                ["export", recipe, "gguf", "export.agreement=0", "--quantisation", kind, "--output", str(output)]
            ):
                sys.exit(f"{kind} cannot be exported")
            numbers[kind] = of_file(output, trained, prompts, first, answers)
            print(kind, numbers[kind], flush=True)
    write_result("gguf_answers", numbers, "python -m benchmarks.gguf_answers RECIPE")


def of_adapter(trained: Trained, prompts: list[list[int]]) -> tuple[list[torch.Tensor], list[str]]:
    """Return the logits of each answer's first token, and the greedy answers, of adapter and base in float32."""
    model = load_adapter(load_model(trained.settings("float32"), trained.weights, "cpu"), trained.run.adapter)
    first, answers, ends = [], [], sorted(stop_ids(model, trained.encoder))
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            first.append(model(ids).logits[0, -1])
            written = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=LONGEST,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=ends[0],
            )[0, len(prompt) :]
        answers.append(trained.encoder.tokenizer.decode(written, skip_special_tokens=True).strip())
    return first, answers


def of_file(
    folder: Path, trained: Trained, prompts: list[list[int]], first: list[torch.Tensor], answers: list[str]
) -> dict[str, Any]:
    """Ask a file the same in llama.cpp; return how far it is from the adapter."""
    from llama_cpp import Llama

    file = next(folder.glob("*.gguf"))
    llama = Llama(str(file), n_ctx=2048, logits_all=True, verbose=False)
    far, same_first, same_ids, found, seconds = [], 0, 0, [], 0.0
    for prompt, (question, shown), logits in zip(prompts, questions(), first, strict=True):
        same_ids += llama.tokenize(trained.encoder.tokenizer.decode(prompt).encode(), special=True) == prompt
        llama.reset()
        llama.eval(prompt)
        ours = torch.tensor(np.array(llama.scores[len(prompt) - 1]))
        far.append(float((ours - logits).abs().max()))
        same_first += int(ours.argmax() == logits.argmax())
        llama.reset()
        began = time.perf_counter()
        said = llama.create_chat_completion(
            trained.encoder.messages(question.question, shown),  # type: ignore[arg-type]
            temperature=0.0,
            repeat_penalty=1.0,
            max_tokens=LONGEST,
        )
        seconds += time.perf_counter() - began
        found.append(said["choices"][0]["message"]["content"].strip())  # type: ignore[index, union-attr]
    llama.close()
    span = max(float(each.max()) for each in first) - min(float(each.min()) for each in first)
    return {
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "prompts with the same ids": same_ids,
        "same first token": same_first,
        "greatest difference of a first token's logit": round(max(far), 3),
        "as a share of their range": round(max(far) / span, 4),
        "same answers": sum(one == other for one, other in zip(found, answers, strict=True)),
        "other answers": [pair for pair in zip(found, answers, strict=True) if pair[0] != pair[1]],
        "seconds an answer": round(seconds / len(prompts), 2),
        "compared by the export": json.loads((folder / "export.json").read_text())["compared"],
    }


if __name__ == "__main__":
    main(*sys.argv[1:2])
