"""Labels written by a language model: asked for, read, mended once, checked, kept or turned away. Knows no server.

Calls go out ahead in a window of rows; labelled rows come back in the order of the rows, whatever the order in which
answers arrive, so that the same answers make the same file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_builders.entailment import Entails
from data_builders.labels.agreement import agrees
from data_builders.labels.balance import count_judgements, with_all_judged
from data_builders.labels.candidate import Candidate, Rejection
from data_builders.labels.gates import check
from data_builders.labels.gold import GoldAbsent, gold_label
from data_builders.labels.headed import Shown, parse_text, repeated
from data_builders.labels.parsing import Parsed, parse_label
from data_builders.labels.prompts import label_call, repair_messages
from data_builders.labels.quotes import verbatim
from data_builders.labels.settings import SelfSynthesisLabelsSettings, TeacherLabelsSettings, form_of
from data_builders.manifest import Tally
from data_builders.records import ContextQuestion, ContextRow, Evidence, Label, Passage, Question, check_context_row
from data_builders.servers import Asker, Call, Reply
from data_builders.servers.job import PASSING, count_tokens
from data_builders.templates import Template, restored, without_thoughts
from data_builders.text import answer_tokens

WrittenSettings = TeacherLabelsSettings | SelfSynthesisLabelsSettings
WINDOW = 1024
"""Questions whose rows are held at once: as far as answers may run ahead of the slowest."""
NO_REPLY = "no_reply"
"""What stands in the place of a gate where a call brought no answer."""
_SHOWN = 400
"""Characters of a reason in the report; what is turned away is listed in full."""
UNREAD = "well_formed"
"""The gate of what holds no label at all; it cannot be turned off for that."""


@dataclass(frozen=True)
class Writing:
    """How labels are written and which are kept.

    Attributes:
        settings: of the recipe.
        template: the prompt.
        annotated: a question with its annotations, by id.
        gold_absent: what becomes of contexts without evidence.
        entails: whether a premise entails a hypothesis, for the support gate; None asks for the words of the answer.
        turned_away: takes what was rejected, and why.
    """

    settings: WrittenSettings
    template: Template
    annotated: Callable[[str], Question]
    gold_absent: GoldAbsent
    entails: Entails | None
    turned_away: Callable[[Candidate, Rejection], None]


@dataclass
class _Case:
    """A question of a row, and what came of asking for its label."""

    passages: tuple[Passage, ...]
    asked: ContextQuestion
    open: bool
    replies: list[Reply] = field(default_factory=list)
    parsed: Parsed | None = None
    raw: str = ""


@dataclass(frozen=True)
class _Row:
    """A row under way."""

    row: ContextRow
    cases: tuple[_Case, ...]


def is_asked(asked: ContextQuestion, gold_absent: GoldAbsent) -> bool:
    """Tell whether a writer is asked for the label of a question.

    Where nothing shown answers it, only an abstention needs reasons: an answer from memory has none, and with "drop"
    there is no label.
    """
    return asked.answerable or gold_absent == "abstain" or not asked.answers


def first_call(row: ContextRow, asked: ContextQuestion, settings: WrittenSettings, template: Template) -> Call:
    """Return the call that asks for the label of one question of a row."""
    key, style, form = f"{row.id} {asked.id} 1", settings.style, form_of(settings)
    return label_call(key, template, row.passages, asked, style, show_answer=settings.show_answer, form=form)


def write_rows(rows: Iterable[ContextRow], writing: Writing, asker: Asker, tally: Tally) -> Iterator[ContextRow]:
    """Label every question of every row, in the order of rows; rows that lose their last question are left out.

    Args:
        rows: with questions and no labels.
        writing: how.
        asker: answers calls. It is asked again for what a window or a repair held back.
        tally: takes what was kept, rejected by which gate, and used up.

    Raises:
        RagFtError: as the asker does; and where a label breaks an invariant of rows.
    """
    desk = _Desk(iter(rows), writing)
    while not desk.is_done():
        for call, reply in asker(desk.calls()):
            desk.take(call, reply)
            yield from _settled(desk, writing, tally)
        yield from _settled(desk, writing, tally)


class _Desk:
    """The rows under way: hands out calls, takes replies, gives finished rows back in order."""

    def __init__(self, rows: Iterator[ContextRow], writing: Writing) -> None:
        self._rows, self._writing = rows, writing
        self._open: deque[_Row] = deque()
        self._held = 0
        self._fresh: deque[tuple[_Row, _Case]] = deque()
        self._again: deque[Call] = deque()
        self._under_way: dict[str, _Case] = {}
        self._exhausted = False

    def is_done(self) -> bool:
        """Tell whether every row was given back."""
        return self._exhausted and not self._open

    def calls(self) -> Iterator[Call]:
        """Yield repairs first, then new calls; ends where the window is full, so that what is late can arrive."""
        while True:
            if self._again:
                yield self._again.popleft()
            elif self._fresh:
                row, case = self._fresh.popleft()
                call = first_call(row.row, case.asked, self._writing.settings, self._writing.template)
                self._under_way[call.key] = case
                yield call
            elif self._held >= WINDOW or not self._take_row():
                return

    def _take_row(self) -> bool:
        row = next(self._rows, None)
        if row is None:
            self._exhausted = True
            return False
        cases = tuple(
            _Case(row.passages, asked, open=is_asked(asked, self._writing.gold_absent)) for asked in row.questions
        )
        under_way = _Row(row, cases)
        self._open.append(under_way)
        self._held += len(cases)
        self._fresh.extend((under_way, case) for case in cases if case.open)
        return True

    def take(self, call: Call, reply: Reply) -> None:
        """Take what a call brought; where it cannot be read, ask again with what was wrong."""
        settings, case = self._writing.settings, self._under_way.pop(call.key)
        case.replies.append(reply)
        case.open = False
        if reply.text is None:
            return
        case.raw = restored(reply.text)
        case.parsed = _read(case, call, settings, truncated=reply.truncated)
        if case.parsed.problems and len(case.replies) < settings.attempts:
            case.open = True
            self._repair(call, case, case.parsed.problems)

    def _repair(self, call: Call, case: _Case, problems: Sequence[str]) -> None:
        key = f"{call.key.rpartition(' ')[0]} {len(case.replies) + 1}"
        shown = without_thoughts(case.raw) or "(no answer)"
        self._under_way[key] = case
        self._again.append(replace(call, key=key, messages=_asked_again(call, shown, problems, self._writing)))

    def finished(self) -> Iterator[_Row]:
        """Yield the rows at the front of which nothing is out any more."""
        while self._open and not any(case.open for case in self._open[0].cases):
            row = self._open.popleft()
            self._held -= len(row.cases)
            yield row


def _asked_again(call: Call, shown: str, problems: Sequence[str], writing: Writing) -> tuple[Mapping[str, str], ...]:
    return repair_messages(call.messages, shown, problems, form_of(writing.settings))


def _read(case: _Case, call: Call, settings: WrittenSettings, *, truncated: bool) -> Parsed:
    """Read what was written, in its form; what it copied from the prompt counts as not written."""
    shape = (case.raw, settings.style, len(case.passages))
    if form_of(settings) == "json":
        parsed = parse_label(*shape, truncated=truncated)
    else:
        parsed = parse_text(*shape, truncated=truncated, told=_told(case.asked) if settings.show_answer else None)
    texts = (text for passage in case.passages for text in (passage.title, passage.text))
    copied = repeated(
        parsed.label, restored(call.messages[0]["content"]), [*texts, case.asked.question, *case.asked.answers]
    )
    return replace(parsed, problems=(*parsed.problems, *copied))


def _told(asked: ContextQuestion) -> Shown:
    return Shown(asked.answers if asked.answerable else ())


def _settled(desk: _Desk, writing: Writing, tally: Tally) -> Iterator[ContextRow]:
    for under_way in desk.finished():
        labelled = (_labelled(case, writing, tally) for case in under_way.cases)
        kept = tuple(asked for asked in labelled if asked is not None)
        if not kept:
            tally.drop("contexts without a question left", 1, under_way.row.id)
            continue
        row = replace(under_way.row, questions=kept)
        check_context_row(row)
        yield row


def _labelled(case: _Case, writing: Writing, tally: Tally) -> ContextQuestion | None:
    """Return the question with its label, the one of the annotations, or nothing; count which."""
    if not case.replies:
        if writing.gold_absent == "drop":
            tally.drop("questions without gold (contexts.gold_absent: drop)", 1, case.asked.id)
            return None
        return _annotated(case, writing, tally)
    _count_use(case, tally)
    candidate = _candidate(case, writing.settings)
    rejection = _rejection(case, candidate, writing)
    tally.count(f"labels asked of contexts {_with(case.asked)} evidence")
    if rejection is None:
        tally.count(f"labels kept of contexts {_with(case.asked)} evidence")
        label = _placed(candidate, writing.settings, tally)
        return _counted(replace(case.asked, label=label, label_source=writing.settings.kind), tally)
    return _turned_away(case, candidate, rejection, writing, tally)


def _with(asked: ContextQuestion) -> str:
    return "with" if asked.answerable else "without"


def _candidate(case: _Case, settings: WrittenSettings) -> Candidate:
    parsed = case.parsed or Parsed(Label((), (), "", None), readable=False)
    return Candidate(case.passages, case.asked, settings.style, parsed.label, case.raw, parsed.problems)


def _rejection(case: _Case, candidate: Candidate, writing: Writing) -> Rejection | None:
    if case.parsed is None:
        return Rejection(NO_REPLY, case.replies[-1].failure or "no answer came")
    if not case.parsed.readable:
        return Rejection(UNREAD, " ".join(case.parsed.problems))
    return check(candidate, writing.settings.gates, writing.entails)


def _turned_away(
    case: _Case, candidate: Candidate, rejection: Rejection, writing: Writing, tally: Tally
) -> ContextQuestion | None:
    writing.turned_away(candidate, rejection)
    tally.count(PASSING, int(case.replies[-1].may_pass))
    gate = "calls without an answer" if rejection.gate == NO_REPLY else f"labels rejected: {rejection.gate}"
    tally.excerpt(gate, f"{case.asked.id}: {rejection.why[:_SHOWN]}")
    if writing.settings.rejected == "drop":
        tally.drop(gate, 1, case.asked.id)
        return None
    tally.count(f"{gate}, those of the annotations taken", sample=case.asked.id)
    return _annotated(case, writing, tally)


def _annotated(case: _Case, writing: Writing, tally: Tally) -> ContextQuestion:
    label = gold_label(case.passages, case.asked, writing.annotated(case.asked.id), writing.gold_absent)
    return _counted(replace(case.asked, label=label, label_source="gold"), tally)


def _count_use(case: _Case, tally: Tally) -> None:
    """Count what the calls of one label read and wrote, those of repairs and of earlier runs included."""
    for reply in case.replies:
        count_tokens(reply, tally)
        tally.count("answers cut off", int(reply.truncated))
    if len(case.replies) > 1:
        mended = case.parsed is not None and not case.parsed.problems
        tally.count("labels mended when asked again" if mended else "labels that asking again did not mend")


def _counted(asked: ContextQuestion, tally: Tally) -> ContextQuestion:
    if asked.label is not None:
        tally.count("labels that abstain" if asked.label.answer is None else "labels with an answer")
        tally.count(f"labels by {asked.label_source}")
        count_judgements(asked.label, tally)
        tally.measure("quotes per label", len(asked.label.evidence))
        tally.measure("words of analysis", len(asked.label.analysis.split()))
    return asked


def _placed(candidate: Candidate, settings: WrittenSettings, tally: Tally) -> Label:
    """Return a label that was let through as rows want it.

    Every passage is judged; quotes stand as their passages have them, letter by letter; an answer that was found to
    agree with an accepted one is written as that. Quotes that a gate which is off would have found are left out.
    """
    label, passages = candidate.label, candidate.passages
    within = replace(label, relevance=tuple(item for item in label.relevance if 0 <= item.passage < len(passages)))
    evidence = tuple(_quotes(candidate, settings.gates.quotes or 1.0))
    tally.count("quotes left out, as the gates let them", len(label.evidence) - len(evidence))
    answer = _as_accepted(label.answer, candidate.asked.answers) if settings.gates.answer else label.answer
    tally.count("answers written as an accepted one", int(answer != label.answer))
    return replace(with_all_judged(within, passages), evidence=evidence, answer=answer)


def _as_accepted(answer: str | None, accepted: Sequence[str]) -> str | None:
    """Return the accepted answer that was given, in whatever words: the target of training is short."""
    if answer is None:
        return None
    said = answer_tokens(answer)
    same = (one for one in accepted if answer_tokens(one) == said)
    return next(same, None) or next((one for one in accepted if agrees(answer, [one])), answer)


def _quotes(candidate: Candidate, least: float) -> Iterator[Evidence]:
    for item in candidate.label.evidence if candidate.asked.answerable else ():
        if not 0 <= item.passage < len(candidate.passages):
            continue
        if quote := verbatim(item.quote, candidate.passages[item.passage].text, least):
            yield replace(item, quote=quote)
