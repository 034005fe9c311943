"""Sources that are files of rows in a format others invented: which format each kind is, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.sources.dpr import DPR, DprSettings
from data_builders.sources.flashrag import CORPUS, FLASHRAG, FlashragSettings
from data_builders.sources.hotpotqa import HOTPOTQA, HotpotqaSettings
from data_builders.sources.kilt import KILT, KNOWLEDGE_SOURCE, KiltSettings, heading
from data_builders.sources.lost_in_the_middle import LOST_IN_THE_MIDDLE, LostInTheMiddleSettings
from data_builders.sources.raft import RAFT, RaftSettings
from data_builders.sources.rgb import RGB, RgbSettings
from data_builders.sources.rows import Format, Mapper, SourceRecord, parsed_file, read_files, setting, split_files
from data_builders.sources.squad import SQUAD, SquadSettings

FileSourceSettings = (
    SquadSettings
    | DprSettings
    | KiltSettings
    | HotpotqaSettings
    | LostInTheMiddleSettings
    | RgbSettings
    | FlashragSettings
    | RaftSettings
)

FORMATS: dict[str, Format] = {
    format_.kind: format_ for format_ in (SQUAD, DPR, KILT, HOTPOTQA, LOST_IN_THE_MIDDLE, RGB, FLASHRAG, RAFT)
}
CORPORA: dict[str, tuple[str, Format]] = {
    "kilt": ("knowledge_source", KNOWLEDGE_SOURCE),
    "flashrag": ("corpus_path", CORPUS),
}
"""Kind -> the setting that names files of passages beside those of questions, and their format."""
NEEDLESS: dict[str, Callable[[Passage], str]] = {"kilt": heading}
"""Kind -> says why a passage of these files is left out unless a question names it; nothing keeps it."""


class FileSource:
    """The records of the files a recipe names, in the files' order."""

    def __init__(self, settings: FileSourceSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._name = name

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream the corpus, if the kind has one of its own and every split searches it, then all rows.

        Raises:
            RagFtError: a file is missing or unreadable, or a row does not fit and `bad_rows` is `stop`.
        """
        settings, name = self._settings, self._name
        if settings.kind in CORPORA:
            field, format_ = CORPORA[settings.kind]
            files = getattr(settings, field)
            for _, path in split_files(files, setting(name, field)) if files else ():
                yield from self._needed(parsed_file(format_, (name, path), settings.bad_rows, tally), tally)
        yield from read_files(FORMATS[settings.kind], settings, name, tally)

    def _needed(self, passages: Iterable[SourceRecord], tally: Tally) -> Iterator[SourceRecord]:
        """Leave out what is needless unless a question names it; the questions are read for that, ids alone kept."""
        why = NEEDLESS.get(self._settings.kind)
        for record in passages:
            if why and isinstance(record, Passage) and (reason := why(record)) and record.id not in self._named:
                tally.drop(reason, 1, record.id)
            else:
                yield record

    @cached_property
    def _named(self) -> frozenset[str]:
        """The ids of all passages that questions name as gold or as alternatives to it."""
        asked = read_files(FORMATS[self._settings.kind], self._settings, self._name, Tally())
        questions = (record for record in asked if isinstance(record, Question))
        return frozenset(id_ for question in questions for id_ in (*question.gold, *question.alternatives))
