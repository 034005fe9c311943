"""The grammar of the invented world: what an attribute, a kind and an entity are. Holds no words and draws nothing.

Patterns are format strings. Slots for the entity: `{S}` and `{P}` open a sentence (subject, possessive), `{s}`, `{p}`,
`{o}` are pronouns, `{t}` is "the town", `{type}` "town". Any other slot is an attribute; `{a_...}` adds "a" or "an".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

PERSON, PLACE, ORGANISATION, WORK = "person", "place", "organisation", "work"
KINDS = (PERSON, PLACE, ORGANISATION, WORK)


@dataclass(frozen=True)
class Attribute:
    """Something that can be asked of an entity.

    Attributes:
        topic: what a sentence about it tells, `{x}` being the entity ("the birthplace of {x}").
        statement: the fact as a clause with `{x}` and `{v}`.
        questions: paraphrases of the question, `{x}` being a name or a description ("the employer of ...").
        sentences: passage patterns that state this attribute alone.
        target: the kind of entity the value is, empty for plain values.
        descriptions: noun phrases with `{x}` that stand for the target in two-hop questions (`{type}` is its type).
        aliases: other accepted answers, with `{v}`.
    """

    topic: str
    statement: str
    questions: tuple[str, ...]
    sentences: tuple[str, ...]
    target: str = ""
    descriptions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """How one kind of entity is written about.

    Attributes:
        attributes: what can be asked, by name.
        links: how many of the linking attributes every family has, so that two-hop questions exist.
        joint: passage patterns that state two attributes in one sentence.
        fillers: sentences without facts; their lengths differ so that any word count can be met.
    """

    attributes: Mapping[str, Attribute]
    links: int
    joint: tuple[str, ...]
    fillers: tuple[str, ...]

    @functools.cached_property
    def patterns(self) -> dict[str, tuple[str, ...]]:
        """The passage patterns in which each attribute occurs."""
        return {
            name: (*attribute.sentences, *(pattern for pattern in self.joint if name in slots(pattern)))
            for name, attribute in self.attributes.items()
        }


@dataclass(frozen=True)
class Entity:
    """A member of a family of near-namesakes.

    Attributes:
        id: the id of its passage.
        name: full name, unique over all splits; the passage's title.
        mention: the name as it stands inside a sentence ("the Ombrel Institute").
        subjects: openings of later sentences with their possessives ("She", "Her").
        pronouns: subject, possessive, object.
        words: further slots, among them `t` and `type`.
        values: the facts its passage states, by attribute.
        targets: position of the linked entity in its family, for linking attributes.
    """

    id: str
    kind: str
    name: str
    mention: str
    subjects: tuple[tuple[str, str], ...]
    pronouns: tuple[str, str, str]
    words: Mapping[str, str]
    values: Mapping[str, str]
    targets: Mapping[str, int]


@functools.cache
def slots(pattern: str) -> frozenset[str]:
    """Return the names in a pattern's braces, attributes without the `a_` of their indefinite article."""
    names = (name for _, name, _, _ in Formatter().parse(pattern) if name)
    return frozenset(name.removeprefix("a_") for name in names)


def capital(text: str) -> str:
    """Return the text with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]
