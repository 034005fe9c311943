"""What the words of a label say about itself: that nothing answers, which answer it comes to, that it was told one.

Patterns, in English and Korean, and where a word is enough in German; a label in another language is only held against
numbers and names. They are narrow on purpose: what they miss costs one doubtful label, what they catch wrongly costs a
good one each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from data_builders.sentences import sentences
from data_builders.text import answer_tokens, contains_answer

MARK = re.compile(r"\[\d{1,6}(?:[ \t]*[,;][ \t]*\d{1,6})*\]")
"""A mark [n] or [n, m] that names shown passages, counted from 1."""
_I = re.IGNORECASE

# "no passage", "none of the given passages", but not "no other passage" or "none of the others"
_SHOWN = r"(?:(?:given|shown|provided|retrieved) )?"
_NONE = rf"(?:no {_SHOWN}passages?|none of (?:the|these) {_SHOWN}passages)"
_THEY = rf"(?:(?:the|these|all) {_SHOWN}passages)"
_TELL = (
    r"(?:answers?|gives?|says?|states?|tells?|mentions?|contains?|provides?|holds?|names?|supports?|specif(?:y|ies))"
)
_ASKED = (
    r"(?: us)? (?:the (?:question|answer|information)|an answer|any answer|this|it\b|enough|who|when|where|which|what|"
    r"how|whether)"
)
_UNANSWERED = re.compile(
    rf"\b{_NONE} (?:\w+ly )?{_TELL}{_ASKED}"
    rf"|\b{_THEY} (?:do not|don't|does not|cannot|fail to) {_TELL}{_ASKED}"
    r"|\b(?:can(?:not|'t)|could not) be (?:determined|answered|established|inferred|known) (?:from|with|by|using|based)"
    r"|\bthe question cannot be answered|\b(?:not enough|insufficient|no) information (?:in|to|is|on|about)"
    r"|어느 글(?:에도|도)[^.]*(?:없|않)|답할 수 없|알 수 없",
    _I,
)
_OUTRIGHT = re.compile(  # about the question itself, so nothing that follows makes it right
    rf"\b{_NONE} (?:answers?|gives?|contains?|provides?|holds?|states?)"
    r" (?:the (?:question|answer)|an answer|this question)\b(?! (?:directly|outright|explicitly|alone|by itself|"
    r"on its own|in one|word for word|in so many))"  # "no passage gives the answer alone" leads to two that do
    r"|\bthe question cannot be answered|답할 수 없",
    _I,
)
_STATED = re.compile(
    r"\banswer(?: to (?:the|this) question)?(?: (?:is|was|must be|should be|would be|has to be)|:)"
    r"(?: (?:therefore|thus|that|clearly|simply|then))*"
    r"[ ,:]+(?P<said>.+)"
    r"|(?:정답|답)은 (?P<korean>.+)",
    _I | re.DOTALL,
)
_STATED_AFTER = re.compile(r" (?:is|was) the (?:right |correct |final )?answer\b", _I)
_NO_STATEMENT = re.compile(  # "the answer is not in the passages", "the answer is given in [2]"
    r"(?:(?:not|never|in|found|given|stated|named|known|unknown|open|missing|nowhere|contained|supported|confirmed|there|"
    r"clear|unclear|here|therefore|directly|explicitly|also|only|what|none|no passage|absent|left|to be|based|derived|"
    r"consistent|evident|obvious|implied|mentioned|provided|available|determined|located|backed|correct|right)"
    r"\b|\[|없|알 수|어디에도|이 글)",
    _I,
)
_THEREFORE = re.compile(
    r"(?:^|[,;:] |\band )(?:so|thus|hence|therefore|consequently|accordingly|in conclusion|this means|which means|"
    r"it follows|we conclude|daher|somit|folglich|deshalb|따라서|그러므로|그래서|결국)\b[, ]*",
    _I,
)
_NUMBER = re.compile(r"(?<![\w.,/-])\d+(?:,\d{3})*(?:\.\d+)?(?![a-z\d/-]|[.,]\d)", _I)
_DENIES = re.compile(r"(?<!or )\bnot (?:in |on |by |at |the )?(?:the )?$", _I)
_DENIED = re.compile(r"(?:이|가)? 아니| (?:is|was) (?:wrong|incorrect|false)\b", _I)
_NO_DENIAL = re.compile(r" (?:alone|only|itself)\b", _I)
_SETS_APART = {"before", "after", "than", "not", "unlike", "over", "against", "with", "without", "from", "by"}
_READING = {"passage", "passages", "evidence", "question", "i", "it"}

_GIVES_ANSWER = re.compile(
    r"^(?:(?!\b(?:not|no|never|neither|nor|none|without|but|only|nothing|would|if)\b|n't\b)[^.])*?"
    r"\b(?:states|gives|contains|holds|provides|says|answers|has) (?:the (?:right |correct )?answer|the question)\b"
    r"(?!['\u2019]s| (?:of|about|to (?:a|an|another|some)\b))",
    _I,
)
_IS_IRRELEVANT = re.compile(
    r"^(?:it|this|that|(?:this |the )?(?:passage|text)(?: \[\d+\])?) (?:is|seems) (?:\w+ly )?"
    r"(?:irrelevant|unrelated|off.topic|not (?:\w+ly )?relevant)\b"
    r"|^(?:it|this|that|(?:this |the )?(?:passage|text)) has nothing to do with\b|관련(?:이)? 없",
    _I,
)

_TOLD = r"(?:provided|supplied|given|told|shown)"
_LEAKS = re.compile(
    r"\b(?:gold(?:en)?|reference|expected|provided|given|supplied|known|target|annotated|accepted|ground.truth) "
    r"(?:answers?|labels?)\b|\bgold passages?\b|\banswer key\b|\bground truth\b"
    rf"|\b(?:correct|right|true) answers? {_TOLD}(?! (?:in|by)\b)"
    rf"|\banswers? (?:that )?(?:i |we )?(?:was|were|has been|have been|is already) {_TOLD}\b"
    r"(?!(?: \w+){0,2} (?:in|by|as|here)\b)"
    rf"|\banswers? {_TOLD} (?:to (?:me|us)|above|beforehand|in advance|in the prompt)\b"
    r"|\banswer is (?:already )?known\b|\b(?:we|i) (?:already )?know the answer\b"
    rf"|\b(?:i|we) (?:was|were|am|are|have been) {_TOLD}(?: with)? (?:that )?(?:the|an) (?:\w+ )?answer\b"
    r"|\bi (?:was|am|have been) (?:told|instructed|given|asked)\b"
    r"|\bas (?:i was |you )?(?:instructed|requested|asked|told|directed)\b(?! (?:in|by|to|of)\b)"
    r"|\b(?:the|my|these|your|per|given) (?:instructions|guidelines)\b|\bsystem prompt\b"
    r"|\b(?:in|of|by|from|per|to|following) (?:the|this|my|your) prompt\b"
    r"|\b(?:according to|following) (?:the )?annotations?\b|\baccording to the labels?\b"
    r"|\bas an? (?:ai\b|(?:\w+ )?language model)|\bjson\b|\boutput format\b"
    r"|(?:주어진|제공된|제시된|알려진) (?:정답|답)|모범 답안|지시사항|프롬프트"
    r"|\bvorgegebene[nr]? antwort\b",
    _I,
)


def whole_sentences(text: str) -> list[str]:
    """Return the sentences of a text, marks [n] included."""
    return [text[start:end].strip() for line in text.splitlines() for start, end in sentences(line)]


def says_unanswered(analysis: str, answers: Sequence[str]) -> str:
    """Return the sentence that says that no passage answers; nothing where there is none.

    A sentence about a detail ("no passage says who helped him") does not count where a sentence with a mark [n] holds
    an answer; one about the question itself always does.
    """
    told = whole_sentences(analysis)
    grounded = any(MARK.search(one) and contains_answer(one, answers) for one in told)
    found = (one for one in told if _OUTRIGHT.search(one) or (not grounded and _UNANSWERED.search(one)))
    return next(found, "")


def stated_answers(text: str) -> Iterator[str]:
    """Yield what a text says outright to be the answer: "the answer is X", "X is the answer"."""
    for sentence in whole_sentences(text):
        behind, before = _STATED.search(sentence), _STATED_AFTER.search(sentence)
        told = [next(filter(None, behind.groups()), "")] if behind else []
        told += [re.split("[.;:]", sentence[: before.start()])[-1]] if before else []
        for said in (MARK.sub("", one).strip() for one in told):
            if answer_tokens(said) and not _NO_STATEMENT.match(said):
                yield said


def concluded_otherwise(text: str, answers: Sequence[str], question: str) -> str:
    """Return the last conclusion of a text ("so ...", "therefore ...") if it names something else than the answer.

    What is named is a number or a run of capitalised words that stands neither in the question nor in an answer. Where
    an answer stands in that conclusion or behind it, it is right. Where the question itself offers the answer to choose
    ("A or B?"), the other names of the question count too, unless a word such as "than" sets them apart.
    """
    told = whole_sentences(text)
    for place in range(len(told) - 1, -1, -1):
        markers = list(_THEREFORE.finditer(told[place]))
        if markers:
            clause = told[place][markers[-1].end() :]
            if contains_answer(" ".join([clause, *told[place + 1 :]]), answers):
                return ""
            return clause if any(_candidates(clause, answers, question)) else ""
    return ""


def _candidates(clause: str, answers: Sequence[str], question: str) -> Iterator[str]:
    is_choice = contains_answer(question, answers)
    known = {token for answer in answers for token in answer_tokens(answer)}
    known |= _READING if is_choice else _READING | set(answer_tokens(question))
    of_numbers = any(map(str.isdigit, " ".join(answers)))  # what is named instead is of the answer's kind
    words = MARK.sub(" ", clause).split()
    for place, word in enumerate(words):
        if place > 0 and is_choice and words[place - 1].lower().strip(",") in _SETS_APART:
            continue
        named = any(map(str.isdigit, word)) if of_numbers else word[:1].isupper() and (place > 0 or is_choice)
        if named and not set(answer_tokens(word)) & known:
            yield word


def number_in_its_place(analysis: str, answers: Sequence[str], question: str, shown: Sequence[str]) -> str:
    """Return the sentence in which an analysis that never comes to its answer has a number that nobody told it.

    Such a number has the length of one in the answers and stands neither in the question nor in any passage; one right
    before a mark [n] has to stand in the passages of the mark.

    Args:
        analysis: as it was written.
        answers: the label's and the accepted ones.
        question: that was asked.
        shown: titles and texts of the passages, in their order.
    """
    lengths = {len(number) for answer in answers for number in _numbers(answer)}
    if not lengths or contains_answer(analysis, answers):
        return ""
    asked = set(answer_tokens(" ".join([question, *answers])))
    known = [asked | set(answer_tokens(text)) for text in shown]
    for sentence in whole_sentences(analysis):
        for number, marked in _attributed(sentence, len(shown)):
            told = marked or range(len(shown))
            if len(number) in lengths and not any(number in known[place] for place in told):
                return sentence
    return ""


def _numbers(text: str) -> list[str]:
    return [number.replace(",", "") for number in _NUMBER.findall(text)]


def _attributed(sentence: str, count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the numbers of a sentence, each with the passages of a mark right behind it, counted from 0."""
    marks = [*MARK.findall(sentence), ""]
    for piece, mark in zip(MARK.split(sentence), marks, strict=True):
        numbers, last = _numbers(piece), piece.rstrip()[-1:].isdigit()
        marked = [int(one) - 1 for one in re.findall(r"\d+", mark) if 0 < int(one) <= count]
        yield from ((one, marked if last and place == len(numbers) else []) for place, one in enumerate(numbers, 1))


def denies(analysis: str, answers: Sequence[str]) -> bool:
    """Tell whether an analysis names its answer only to say that it is not the one ("1890, not 1889")."""
    rest, found = analysis, False
    for answer in sorted(filter(str.strip, answers), key=len, reverse=True):
        whole = re.compile(rf"(?<!\w){re.escape(answer)}(?![^\W\uac00-\ud7a3])", _I)  # Korean particles may follow
        for start, end in (one.span() for one in whole.finditer(rest)):
            denied = _DENIES.search(rest[max(0, start - 20) : start]) or _DENIED.match(rest, end)
            if not denied or _NO_DENIAL.match(rest, end):
                return False
            found = True
        rest = whole.sub(" ", rest)
    return found and not contains_answer(rest, answers)


def gives_answer(reason: str) -> bool:
    """Tell whether the reason of a judgement says that its passage gives the answer."""
    return any(_GIVES_ANSWER.search(one) for one in whole_sentences(reason))


def is_irrelevant(reason: str) -> bool:
    """Tell whether the reason of a judgement calls its passage irrelevant."""
    return _IS_IRRELEVANT.search(reason) is not None


def leaked(text: str, shown: Iterable[str]) -> str:
    """Return the words that speak of an answer given beforehand or of instructions.

    Where what is shown has them, or the last of them, they are its topic: instructions of a captain, a JSON file.
    """
    topics = " ".join(shown).casefold()
    words = set(answer_tokens(topics)) - {"answer", "answers", "label", "labels"}
    told = (found[0] for found in _LEAKS.finditer(text))
    return next((one for one in told if one.casefold() not in topics and answer_tokens(one)[-1] not in words), "")
