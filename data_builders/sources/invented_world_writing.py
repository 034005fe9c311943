"""Writes the passages of the invented world and asks its questions. Draws no facts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from data_builders.files import seeded
from data_builders.records import GoldEvidence, Passage, Question
from data_builders.sources.invented_world_blocks import GRAMMAR, Families
from data_builders.sources.invented_world_model import Attribute, Entity, capital, slots
from data_builders.sources.invented_world_names import indefinite


@dataclass(frozen=True)
class Fact:
    """Something a question can be about: an attribute of `entity`, or of what `link` of `entity` leads to."""

    entity: Entity
    attribute: str
    link: str = ""


@dataclass(frozen=True)
class Written:
    """A passage and the sentence of it that states each attribute."""

    passage: Passage
    quotes: Mapping[str, str]


def write_passage(entity: Entity, words: tuple[int, int], seed: int) -> Written:
    """Write an entity's facts, in any order and wording, and pad them to a number of words within `words`."""
    rng = seeded(seed, "invented_world", entity.id, "text")
    fillers = [_fill(pattern, entity, entity.subjects[0]) for pattern in GRAMMAR[entity.kind].fillers]
    while True:  # most wordings fit at once; where the bounds are tight, other wordings are tried
        quotes = _state_facts(rng, entity)
        sentences = list(dict.fromkeys(quotes.values()))
        length = _count(sentences)
        if length > words[1]:
            continue
        padding = _choose_fillers(rng, fillers, rng.randint(max(words[0], length), words[1]) - length)
        if length + _count(padding) >= words[0]:
            break
    for filler in padding:
        sentences.insert(rng.randint(1, len(sentences)), filler)
    return Written(Passage(entity.id, entity.name, " ".join(sentences)), quotes)


def _state_facts(rng: random.Random, entity: Entity) -> dict[str, str]:
    """Word every fact of the entity; two facts may share a sentence. The first sentence opens with the full name."""
    kind, left = GRAMMAR[entity.kind], list(entity.values)
    rng.shuffle(left)
    quotes: dict[str, str] = {}
    subject = _full_name(entity)
    while left:
        options = [pattern for pattern in kind.patterns[left[0]] if _states_only(pattern, left, kind.attributes)]
        if not quotes:
            options = [pattern for pattern in options if pattern.startswith(("{S}", "{P}"))]
        pattern = rng.choice(options)
        subject = _choose_subject(rng, entity, pattern, subject) if quotes else subject
        stated = [name for name in left if name in slots(pattern)]
        quotes |= dict.fromkeys(stated, _fill(pattern, entity, subject))
        left = [name for name in left if name not in stated]
    return quotes


def _full_name(entity: Entity) -> tuple[str, str]:
    return capital(entity.mention), f"{capital(entity.mention)}'s"


def _choose_subject(rng: random.Random, entity: Entity, pattern: str, last: tuple[str, str]) -> tuple[str, str]:
    """Choose how a later sentence opens: the full name, the pronoun or the noun, where they read well."""
    pronoun, noun = entity.subjects
    choices = [_full_name(entity)]
    if not pattern.startswith("{S},"):  # "It, written by ..., won ..."
        choices.append(pronoun)
    if not slots(pattern) & {"type"}:  # "The town is a town on ..."
        choices.append(noun)
    return rng.choice([choice for choice in choices if choice != last] or choices)


def _states_only(pattern: str, allowed: list[str], attributes: Mapping[str, Attribute]) -> bool:
    return all(name in allowed for name in slots(pattern) if name in attributes)


def _fill(pattern: str, entity: Entity, subject: tuple[str, str]) -> str:
    with_articles = {f"a_{name}": indefinite(value) for name, value in entity.values.items()}
    pronouns = dict(zip("spo", entity.pronouns, strict=True))
    forms = {"S": subject[0], "P": subject[1], **pronouns, **entity.words, **entity.values, **with_articles}
    return capital(pattern.format_map(forms))


def _choose_fillers(rng: random.Random, fillers: list[str], room: int) -> list[str]:
    chosen = []
    for filler in rng.sample(fillers, len(fillers)):
        if (length := _count([filler])) <= room:
            chosen.append(filler)
            room -= length
    return chosen


def _count(sentences: list[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def one_hop_facts(families: Families) -> list[list[Fact]]:
    """Return what can be asked of each entity of a block."""
    return [[Fact(entity, name) for name in entity.values] for family in families.values() for entity in family]


def two_hop_facts(families: Families) -> list[list[Fact]]:
    """Return what can be asked of the relatives of each entity of a block that has any."""
    return [
        [Fact(entity, name, link) for link in entity.targets for name in _relative(families, entity, link).values]
        for family in families.values()
        for entity in family
        if entity.targets
    ]


def _relative(families: Families, entity: Entity, link: str) -> Entity:
    return families[GRAMMAR[entity.kind].attributes[link].target][entity.targets[link]]


def ask(fact: Fact, id_: str, families: Families, written: Mapping[str, Written], seed: int) -> Question:
    """Word the question about a fact, with its answers, evidence and analysis."""
    rng = seeded(seed, "invented_world", fact.entity.id, "question", fact.link, fact.attribute)
    if fact.link:
        holder = _relative(families, fact.entity, fact.link)
        link = GRAMMAR[fact.entity.kind].attributes[fact.link]
        asked_of = _say(rng.choice(link.descriptions), fact.entity, {"type": holder.words["type"]})
        steps = [(fact.entity, fact.link), (holder, fact.attribute)]
    else:
        holder, asked_of = fact.entity, fact.entity.mention
        steps = [(holder, fact.attribute)]
    attribute, answer = GRAMMAR[holder.kind].attributes[fact.attribute], holder.values[fact.attribute]
    *premises, conclusion = [capital(_statement(entity, name)) for entity, name in steps]
    return Question(
        id=id_,
        question=capital(_say(rng.choice(attribute.questions), holder, {"x": asked_of})),
        answers=_answers(attribute, answer),
        gold=tuple(entity.id for entity, _ in steps),
        evidence=tuple(_evidence(entity, name, written) for entity, name in steps),
        analysis=". ".join([*premises, f"{conclusion}, so the answer is {answer}."]),
        source="invented_world",
        group="two_hop" if fact.link else "one_hop",
    )


def _evidence(entity: Entity, name: str, written: Mapping[str, Written]) -> GoldEvidence:
    topic = _say(GRAMMAR[entity.kind].attributes[name].topic, entity)
    return GoldEvidence(entity.id, written[entity.id].quotes[name], f"It states {topic}.")


def _statement(entity: Entity, name: str) -> str:
    value = entity.values[name]
    return _say(GRAMMAR[entity.kind].attributes[name].statement, entity, {"v": value, "a_v": indefinite(value)})


def _say(pattern: str, entity: Entity, forms: Mapping[str, str] | None = None) -> str:
    return pattern.format_map({"x": entity.mention, **entity.words, **(forms or {})})


def _answers(attribute: Attribute, answer: str) -> tuple[str, ...]:
    """Return the answer as the passage writes it, then its aliases; a quantity may come without its unit."""
    aliases = [alias.format(v=answer, a_v=indefinite(answer)) for alias in attribute.aliases]
    number = answer.split()[0]
    if number[0].isdigit() and number != answer:
        aliases.append(number)
    if "," in answer:
        aliases.append(answer.replace(",", ""))
    return (answer, *aliases)
