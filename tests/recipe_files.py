"""Small files in the formats of the shipped recipes: when towns built their lighthouses, or who did; all invented.

Each fact stands in one passage. Traps are passages that say the answer of a question and are not its gold.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


_ENDS = product(("mo", "da", "ri", "su"), ("th", "ck", "ne", "lor", "by"))
_TOWNS = [start + "".join(end) for start, end in product(("Vel", "Bran", "Tor", "Mas", "Lin", "Gar"), _ENDS)]
_WORDS = _words(
    "salt rope wind barrel sailor tide stone market bread winter gull net harvest wagon bell roof copper garden",
    "orchard ferry lantern cellar bridge spring chimney meadow timber anchor mill candle pepper wool",
)
_KOREAN_TOWNS = _words(
    "서울 부산 대구 인천 광주 대전 울산 수원 성남 고양 용인 창원 청주 전주 천안 포항 김해 제주 안산 안양",
    "남원 목포 여수 순천 군산 익산 강릉 속초 춘천 원주 동해 삼척 태백 충주 제천 공주 보령 아산 서산 논산",
    "당진 정읍 김제 나주 광양 경주 안동 구미 영주 영천 상주 문경 경산 진주 통영 사천",
)
_KOREAN_NAMES = ["".join(parts) for parts in product("김박최정윤", "도서지태하민", ("현", "준", "석", "훈"))]
_KOREAN_WORDS = _words(
    "소금 밧줄 바람 항아리 어부 밀물 돌담 시장 겨울 갈매기 그물 수레 지붕 구리 과수원 나룻배",
    "등불 다리 굴뚝 풀밭 목재 방앗간 양초 후추 양털 봄비 종소리 부엌 마당 언덕",
)


@dataclass(frozen=True)
class Fact:
    """A question and the passage that answers it."""

    id: str
    town: str
    question: str
    answer: str
    text: str

    @property
    def start(self) -> int:
        return self.text.index(self.answer)


def _filler(words: list[str], rng: Random, sentences: int = 3) -> str:
    return " ".join(" ".join(rng.choices(words, k=7)).capitalize() + "." for _ in range(sentences))


def english(first: int, count: int) -> tuple[list[Fact], list[tuple[str, str]]]:
    """Return facts about the towns from `first` on, and traps as (title, text): another town, the same year."""
    facts, traps = [], []
    for number in range(first, first + count):
        rng, town, year = Random(number), _TOWNS[number], str(1500 + 3 * number)
        text = f"{_filler(_WORDS, rng, 1)} The lighthouse of {town} was built in {year}. {_filler(_WORDS, rng)}"
        facts.append(Fact(f"f{number}", town, f"When was the lighthouse of {town} built?", year, text))
        text = f"{_filler(_WORDS, rng, 2)} The lighthouse of Old {town} was painted in {year}. {_filler(_WORDS, rng)}"
        traps.append((f"Old {town}", text))
    return facts, traps


def korean(first: int, count: int) -> tuple[list[Fact], list[tuple[str, str]]]:
    """As `english`; in the traps the builder's name carries another particle than in the gold passage."""
    facts, traps = [], []
    for number in range(first, first + count):
        rng, town, builder = Random(number), _KOREAN_TOWNS[number], _KOREAN_NAMES[number]
        text = f"{_filler(_KOREAN_WORDS, rng, 1)} {town}의 등대는 {builder}이 세웠다. {_filler(_KOREAN_WORDS, rng)}"
        facts.append(Fact(f"k{number}", town, f"누가 {town}에 등대를 세웠습니까?", builder, text))
        particle = ("은", "에게서", "의", "과")[number % 4]
        text = f"{_filler(_KOREAN_WORDS, rng, 2)} {town}에 새로 선 등대는 {builder}{particle} 관계가 있다."
        traps.append((f"새 {town}", f"{text} {_filler(_KOREAN_WORDS, rng)}"))
    return facts, traps


def lines(path: Path, rows: list[Any]) -> Path:
    """Write JSON Lines, compressed where the name says so."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def own_rows(path: Path, facts: list[Fact]) -> Path:
    """Our own rows, each with its gold passage."""
    return lines(
        path,
        [
            {
                "id": fact.id,
                "question": fact.question,
                "answers": [fact.answer, f"in {fact.answer}"],
                "passages": [{"id": f"p-{fact.id}", "title": fact.town, "text": fact.text, "is_gold": True}],
            }
            for fact in facts
        ],
    )


def passages(path: Path, titled: list[tuple[str, str]]) -> Path:
    """Further passages of our own rows."""
    return lines(path, [{"id": f"t{n}", "title": title, "text": text} for n, (title, text) in enumerate(titled)])


def squad(path: Path, facts: list[Fact], traps: list[tuple[str, str]]) -> Path:
    """Articles as SQuAD and KorQuAD write them, a trap as their last paragraph."""
    articles = []
    for fact, (_, trap) in zip(facts, [*traps[1:], *traps[:1]], strict=True):
        answers = [{"text": fact.answer, "answer_start": fact.start}]
        asked = {"id": fact.id, "question": fact.question, "answers": answers}
        paragraphs = [{"context": fact.text, "qas": [asked]}, {"context": trap, "qas": []}]
        articles.append({"title": fact.town, "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False), encoding="utf-8")
    return path


def dpr(path: Path, facts: list[Fact], traps: list[tuple[str, str]]) -> Path:
    """DPR's training rows: two positives, the next facts and the own trap as hard negatives, prose as negatives."""
    rows = []
    for number, fact in enumerate(facts):
        rng = Random(fact.id)
        again = f"{_filler(_WORDS, rng, 2)} Since {fact.answer} a lamp burns at {fact.town}."
        hard = [(near.town, near.text, near.id) for near in (facts + facts)[number + 1 : number + 9]]
        prose = [(f"Prose {fact.id}-{n}", _filler(_WORDS, rng, 4), f"{fact.id}-n{n}") for n in range(6)]
        rows.append(
            {
                "question": fact.question,
                "answers": [fact.answer],
                "positive_ctxs": _ctxs([(fact.town, fact.text, fact.id), (fact.town, again, f"{fact.id}-b")], 900),
                "hard_negative_ctxs": _ctxs([*hard, (*traps[number], f"{fact.id}-t")], 500),
                "negative_ctxs": _ctxs(prose, 100),
            }
        )
    text = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    path.write_bytes(gzip.compress(text))
    return path


def _ctxs(entries: list[tuple[str, str, str]], best: int) -> list[dict[str, Any]]:
    return [
        {"title": title, "text": text, "score": best - place, "title_score": 0, "passage_id": id_}
        for place, (title, text, id_) in enumerate(entries)
    ]


def documents(folder: Path, facts: list[Fact], traps: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Write a document for each fact, as PDF, text, Markdown or HTML; return the rows of questions."""
    folder.mkdir()
    rows = []
    for number, (fact, (title, trap)) in enumerate(zip(facts, [*traps[1:], *traps[:1]], strict=True)):
        suffix = "pdf" if number % 8 == 0 else ("txt", "md", "html")[number % 3]
        path = folder / f"{fact.town}.{suffix}"
        more = _filler(_WORDS, Random(number), 30)
        _write_document(path, f"The harbour of {fact.town}", [fact.text, more, f"{title}: {trap}"])
        named = {"quote": f"The lighthouse of {fact.town} was built in {fact.answer}."} if number % 2 else {}
        row = {"id": fact.id, "question": fact.question, "answers": [fact.answer], "document": path.name, **named}
        rows.append({**row, "page": 1} if suffix == "pdf" else row)
    return rows


def _write_document(path: Path, title: str, paragraphs: list[str]) -> None:
    if path.suffix == ".pdf":
        from fpdf import FPDF

        pdf = FPDF()
        pdf.set_title(title)
        pdf.add_page()
        pdf.set_font("helvetica", "", 11)
        for paragraph in paragraphs:
            pdf.multi_cell(0, 6, paragraph, new_x="LMARGIN", new_y="NEXT")
            pdf.ln(6)
        pdf.output(str(path))
        return
    if path.suffix == ".html":
        body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
        text = f"<html><head><title>{title}</title></head><body>{body}</body></html>"
    else:
        text = "\n\n".join([f"# {title}" if path.suffix == ".md" else title, *paragraphs])
    path.write_text(text, encoding="utf-8")
