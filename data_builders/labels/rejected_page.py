"""What gates turned away: all of it as JSON lines, and a page with some of each gate to read. Judges nothing.

Outputs and passages are untrusted, so the page escapes all of them and may load and run nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_builders.files import atomic_path
from data_builders.labels.candidate import Candidate, Rejection
from data_builders.labels.gates import GATES
from data_builders.labels.settings import GatesSettings

LINES, PAGE = "rejected.jsonl", "rejected.html"
SAMPLES = 20
"""Samples of each gate on the page: the first ones."""
LONGEST = 6_000
"""Characters of an output or a passage on the page."""
_TEMPLATES = Path(__file__).parent / "templates"
_OTHERS = {"no_reply": "The server answers the call."}


@dataclass
class _Seen:
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[Candidate, Rejection]]] = field(default_factory=dict)

    def add(self, candidate: Candidate, rejection: Rejection) -> None:
        """Count a rejection; keep the first few of each gate, so that memory does not grow."""
        self.counts[rejection.gate] += 1
        kept = self.samples.setdefault(rejection.gate, [])
        if len(kept) < SAMPLES:
            kept.append((candidate, rejection))


@contextmanager
def rejected_writer(
    folder: Path, kept: Callable[[], int] | None = None
) -> Iterator[Callable[[Candidate, Rejection], None]]:
    """Take rejections one by one and leave rejected.jsonl and rejected.html in `folder` when all are there.

    A line has the question's id, gate, why, question, accepted answers, whether the context had evidence, ids of the
    passages in the order shown, and the output. Both files are written atomically, and not at all after an error.

    Args:
        folder: where the files go; made if missing.
        kept: tells at the end how many labels passed; without it the page does not say.

    Raises:
        RagFtError: the folder cannot be written.
    """
    seen = _Seen()
    with atomic_path(folder / LINES) as temporary:
        # a lone surrogate of an output becomes an escape, which JSON reads back as the same
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as lines:

            def take(candidate: Candidate, rejection: Rejection) -> None:
                seen.add(candidate, rejection)
                lines.write(rejected_line(candidate, rejection))

            yield take
        with atomic_path(folder / PAGE) as page:
            page.write_text(_page(seen, kept() if kept else None), encoding="utf-8", errors="replace")


def rejected_line(candidate: Candidate, rejection: Rejection) -> str:
    """Return a rejection as a line of JSON."""
    asked = candidate.asked
    entry = {
        "id": asked.id,
        "gate": rejection.gate,
        "why": rejection.why,
        "question": asked.question,
        "answers": asked.answers,
        "answerable": asked.answerable,
        "passages": [passage.id for passage in candidate.passages],
        "raw": candidate.raw,
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _page(seen: _Seen, kept: int | None) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = sorted(seen.counts, key=lambda name: (list(GATES).index(name) if name in GATES else -1, name))
    gates = [
        {
            "name": name,
            "asks": _asks(name),
            "count": seen.counts[name],
            "samples": [_sample(*pair) for pair in seen.samples[name]],
        }
        for name in names
    ]
    template = environment.get_template("rejected.html.j2")
    return template.render(gates=gates, kept=kept, rejected=seen.counts.total(), most=SAMPLES)


def _asks(name: str) -> str:
    """Return what a gate asks for, in the words of its setting."""
    known = GatesSettings.model_fields.get(name)
    return " ".join((known.description or "").split()) if known else _OTHERS.get(name, "")


def _sample(candidate: Candidate, rejection: Rejection) -> dict[str, Any]:
    asked = candidate.asked
    return {
        "id": asked.id,
        "why": rejection.why,
        "question": asked.question,
        "answers": asked.answers,
        "answerable": asked.answerable,
        "raw": _cut(candidate.raw),
        "passages": [
            {"number": index + 1, "title": passage.title, "text": _cut(passage.text), "gold": index in asked.gold}
            for index, passage in enumerate(candidate.passages)
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026 ({len(text) - LONGEST:,} characters more)"
