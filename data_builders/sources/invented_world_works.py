"""How works of the invented world (novels, plays, operas, films, ballets) are written and asked about. Wording only."""

from data_builders.sources.invented_world_model import ORGANISATION, PERSON, PLACE, Attribute, Kind

_STAGED = {"runs": "lasts", "run": "last", "unit": "minutes"}
TYPES = {
    "novel": {
        **{"maker": "author", "made": "written", "wrote": "wrote", "out": "published"},
        **{"runs": "runs to", "run": "run to", "unit": "pages"},
    },
    "play": {"maker": "author", "made": "written", "wrote": "wrote", "out": "first staged", **_STAGED},
    "opera": {"maker": "composer", "made": "composed", "wrote": "composed", "out": "first performed", **_STAGED},
    "film": {"maker": "director", "made": "directed", "wrote": "directed", "out": "released", **_STAGED},
    "ballet": {
        **{"maker": "choreographer", "made": "choreographed", "wrote": "choreographed", "out": "first danced"},
        **_STAGED,
    },
}
"""Slots that depend on the type of work: who made it and how, how it came out, how its length is told."""

ATTRIBUTES = {
    "creator": Attribute(
        topic="the {maker} of {x}",
        statement="{x} was {made} by {v}",
        questions=(
            "Who {wrote} {x}?",
            "Who was the {maker} of {x}?",
            "By whom was {x} {made}?",
            "What is the name of the {maker} of {x}?",
        ),
        sentences=(
            "{S} was {made} by {creator}.",
            "{S} is {a_type} by {creator}.",
            "{P} {maker} was {creator}.",
            "{creator} {wrote} {o} in a single winter.",
            "{S} is the work of {creator}.",
        ),
        target=PERSON,
        descriptions=("the {maker} of {x}", "the person who {wrote} {x}"),
    ),
    "year": Attribute(
        topic="the year in which {x} was {out}",
        statement="{x} was {out} in {v}",
        questions=(
            "In which year was {x} {out}?",
            "When was {x} {out}?",
            "In what year did {x} reach the public?",
            "From which year does {x} date?",
        ),
        sentences=(
            "{S} was {out} in {year}.",
            "{S} dates from {year}.",
            "{S} reached the public in {year}.",
            "After long delays {s} was {out} in {year}.",
            "{S} first appeared in {year}.",
        ),
    ),
    "setting": Attribute(
        topic="the place in which {x} is set",
        statement="{x} is set in {v}",
        questions=(
            "Where is {x} set?",
            "In which place is {x} set?",
            "Where does the action of {x} take place?",
            "What is the setting of {x}?",
        ),
        sentences=(
            "{S} is set in {setting}.",
            "{S} is {a_type} set in {setting}.",
            "{P} setting is {setting}.",
            "The action takes place in {setting}.",
            "{P} plot unfolds in {setting}.",
        ),
        target=PLACE,
        descriptions=("the {type} in which {x} is set", "the {type} where the action of {x} takes place"),
    ),
    "sponsor": Attribute(
        topic="the organisation that commissioned {x}",
        statement="{x} was commissioned by the {v}",
        questions=(
            "Which organisation commissioned {x}?",
            "Who commissioned {x}?",
            "Who paid for {x}?",
            "By which organisation was {x} commissioned?",
        ),
        sentences=(
            "{S} was commissioned by the {sponsor}.",
            "{S} was paid for by the {sponsor}.",
            "The {sponsor} commissioned {o}.",
            "The {sponsor} paid for {t}.",
            "{S} was made on commission from the {sponsor}.",
        ),
        target=ORGANISATION,
        descriptions=("the organisation that commissioned {x}", "the organisation that paid for {x}"),
        aliases=("the {v}",),
    ),
    "prize": Attribute(
        topic="the prize won by {x}",
        statement="{x} won the {v}",
        questions=(
            "Which prize did {x} win?",
            "What award was given to {x}?",
            "Which award did {x} receive?",
            "What prize went to {x}?",
        ),
        sentences=(
            "{S} won the {prize}.",
            "{S} was awarded the {prize}.",
            "The {prize} went to {t}.",
            "A divided jury gave {o} the {prize}.",
            "{S} earned the {prize} as best {type}.",
        ),
        aliases=("the {v}",),
    ),
    "length": Attribute(
        topic="the length of {x}",
        statement="{x} {runs} {v}",
        questions=(
            "How many {unit} does {x} {run}?",
            "How long is {x}?",
            "What is the length of {x} in {unit}?",
            "What is the length of {x}?",
        ),
        sentences=(
            "{S} {runs} {length}.",
            "{P} length is {length}.",
            "At {length} {s} is neither short nor long.",
            "In full {s} {runs} {length}.",
        ),
    ),
    "hero": Attribute(
        topic="the main character of {x}",
        statement="the main character of {x} is {v}",
        questions=(
            "Who is the main character of {x}?",
            "Whose story does {x} tell?",
            "Who is the central figure of {x}?",
            "What is the main character of {x} called?",
        ),
        sentences=(
            "{P} main character is {hero}.",
            "{P} central figure is {hero}.",
            "{S} tells the story of {hero}.",
            "{S} follows the fortunes of {hero}.",
            "{hero} is the main character.",
        ),
    ),
}

WORKS = Kind(
    attributes=ATTRIBUTES,
    links=2,
    joint=(
        "{S} is {a_type} by {creator}, {out} in {year}.",
        "{S}, {out} in {year}, is set in {setting}.",
        "{S}, {made} by {creator}, won the {prize}.",
        "{S} tells the story of {hero} and is set in {setting}.",
        "{S} was commissioned by the {sponsor} and {runs} {length}.",
        "{S} {runs} {length} and follows the fortunes of {hero}.",
    ),
    fillers=(
        "{P} ending is sad.",
        "Reviews were mostly kind.",
        "{S} has never been translated.",
        "The opening is slow and dark.",
        "Students often choose it for their essays.",
        "{S} was forgotten for a time and rediscovered.",
        "Jokes and songs break the tension of the middle part.",
        "Some people were shocked by the harsh tone of the dialogue.",
        "{S} exists in two versions, of which the shorter is better known.",
        "A lost early draft is said to have had a happy ending.",
        "Critics have praised the clear structure and the quiet humour of the last part.",
        "{S} deals with an inheritance, a broken promise and the slow return of trust.",
        "Rain, silence and locked doors play a large part in it.",
        "{S} sold well.",
        "A sequel was planned but never finished.",
        "The minor characters are drawn with care.",
        "{S} is often quoted by people who do not know it.",
        "Fashion soon moved on.",
        "Admirers compare its mood to that of a long walk in the snow.",
        "{P} style is plain and direct.",
        "Censors removed one scene, which was put back later.",
        "Imitations appeared at once.",
        "The title puzzled the public and was nearly changed at the last moment.",
        "Later generations valued it more than the people it was made for.",
    ),
)
