"""What a push sends: of a run, the weights with card, figure, recipe, manifests and contract. Sends nothing itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from rag_ft.export.card import FIGURE_FILE, model_card
from rag_ft.export.card_facts import CardFacts, DataSource
from rag_ft.export.push_files import (
    Gathered,
    PushFile,
    folder_files,
    json_file,
    public_manifest,
    size_text,
    text_file,
    with_hub_base,
)
from rag_ft.export.push_scan import Places
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.report.figures import save_figure
from rag_ft.report.findings import gold_modes

_LISTED = 40


@dataclass(frozen=True)
class Records:
    """What a run tells of itself.

    Attributes:
        recipe: the resolved recipe.
        manifests: of the steps of the build, by step.
        scores: the content of scores.json; None where nothing was evaluated.
        places: folders of this machine, cut out of all of these.
    """

    recipe: Mapping[str, Any]
    manifests: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Any] | None
    places: Places

    def files(self) -> list[PushFile]:
        """Return recipe and manifests as files, without paths and without rows of the data."""
        told = yaml.safe_dump(self.places.without(self.recipe), sort_keys=False, allow_unicode=True)
        manifests = [
            json_file(f"manifests/{step}.json", public_manifest(manifest, self.places))
            for step, manifest in self.manifests.items()
        ]
        return [text_file("recipe.yaml", told), *manifests]


def model_files(folder: Path, facts: CardFacts, records: Records, remedy: str, contract: Path) -> Gathered:
    """Return everything that is sent of an adapter's or an exported folder.

    Args:
        folder: where it lies.
        facts: what the card says.
        records: what the run tells of itself.
        remedy: the command that makes the folder.
        contract: prompt.json, for folders that have none.

    Raises:
        RagFtError: something that has to be sent is missing or damaged.
    """
    gathered = folder_files(folder, remedy)
    names = {file.path for file in gathered.files}
    facts = replace(facts, files=[name for name in sorted(names) if name.endswith(".gguf")])
    files = with_hub_base(gathered.files, facts.base_model, facts.revision, records.places)
    if CONTRACT_FILE not in names:
        files.append(_contract(contract, records.places))
    if records.scores and gold_modes(records.scores) and FIGURE_FILE not in names:
        files.append(_figure(records.scores))
    card = text_file("README.md", model_card(records.scores, facts))
    return Gathered((card, *files, *notice_file(facts), *records.files()), gathered.left_out)


def _contract(path: Path, places: Places) -> PushFile:
    if not path.is_file():
        raise RagFtError(
            f"{path} does not exist, so nobody could ask the model as it was trained. Train again with "
            "`rag-ft train RECIPE --restart`."
        )
    return with_hub_base([PushFile(CONTRACT_FILE, path)], None, None, places)[0]


def _figure(scores: Mapping[str, Any]) -> PushFile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FIGURE_FILE
        save_figure(scores, path)
        return PushFile(FIGURE_FILE, path.read_bytes())


def notice_file(facts: CardFacts) -> list[PushFile]:
    """Return the file NOTICE that the base model's licence asks for; none where it asks for none."""
    known = facts.base_licence
    return [text_file("NOTICE", f"{known.notice}\n")] if known and known.notice else []


def licence_notes(facts: CardFacts) -> list[str]:
    """Return what the licence of the base model asks for that a push cannot see to."""
    known, name = facts.base_licence, (facts.repo or "").partition("/")[2]
    notes = []
    if known and known.prefix and not name.lower().startswith(known.prefix.lower()):
        notes.append(
            f"the licence of {facts.base_model} ({known.identifier}) wants names of models made from it to begin "
            f"with {known.prefix}: --repo {(facts.repo or '').partition('/')[0]}/{known.prefix}-{name}"
        )
    if facts.licence is None:
        notes.append("the card states no licence: set export.licence")
    return notes + data_notes(facts.sources)


def data_notes(sources: Sequence[DataSource]) -> list[str]:
    """Return which sources have no licence that anybody stated."""
    unknown = [one.name for one in sources if one.licence is None]
    return (
        [f"the card states no licence of the data of {', '.join(unknown)}: set export.data_licences"] if unknown else []
    )


def about_files(gathered: Gathered, say: Callable[[str], None]) -> None:
    """Say what is sent: each file with its size, the largest first where there are very many, and what stays here."""
    shown: Sequence[PushFile] = gathered.files
    if len(shown) > _LISTED:
        shown = sorted(shown, key=lambda file: -file.size)[:_LISTED]
    width = max(len(file.path) for file in shown)
    for file in shown:
        say(f"  {file.path:<{width}}  {size_text(file.size):>9}")
    if len(shown) < len(gathered.files):
        say(f"  and {len(gathered.files) - len(shown)} smaller ones")
    say(f"  {len(gathered.files)} files, {size_text(gathered.size)}")
    if gathered.left_out:
        say(f"  stays here: {', '.join(gathered.left_out)} (names that are not on the list)")
