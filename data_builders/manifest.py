"""What a step took in, put out and left out: the tally it keeps while working and the manifest beside its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_builders.files import content_hash, file_hash, write_json

MANIFEST = "manifest.json"
_SAMPLES = 5
_EXCERPTS = 10
_QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass
class Tally:
    """What a step counts. Memory does not grow with rows: histograms of small integers and a few sample ids."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows per file written."""
    counts: dict[str, Any] = field(default_factory=dict)
    """Anything worth knowing: numbers, shares, histograms."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What was left out, by reason."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """The first ids of each reason and count."""
    excerpts: dict[str, list[str]] = field(default_factory=dict)
    """A few examples to read, as text, by name."""
    advice: list[str] = field(default_factory=list)
    """What to change if the numbers look wrong."""
    _measured: dict[str, Counter[int]] = field(default_factory=dict)

    def count(self, name: str, amount: int = 1, sample: str | None = None) -> None:
        """Add to a named number; `sample` is an id to remember."""
        self.counts[name] = self.counts.get(name, 0) + amount
        self._sample(name, sample)

    def drop(self, reason: str, amount: int = 1, sample: str | None = None) -> None:
        """Count what was left out; `sample` is an id to remember."""
        self.dropped[reason] += amount
        self._sample(reason, sample)

    def excerpt(self, name: str, text: str) -> None:
        """Keep `text` as an example of `name`, if few are there yet."""
        kept = self.excerpts.setdefault(name, [])
        if len(kept) < _EXCERPTS:
            kept.append(text)

    def measure(self, name: str, value: int) -> None:
        """Add one value to the distribution `name`."""
        self._measured.setdefault(name, Counter())[value] += 1

    def histogram(self, name: str) -> dict[int, int]:
        """Return value -> how often, sorted by value."""
        return dict(sorted(self._measured.get(name, Counter()).items()))

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Return minimum, 5 %, median, 95 %, maximum and mean of everything measured (nearest rank)."""
        return {name: _quantiles(self.histogram(name)) for name in self._measured}

    def state(self) -> dict[str, Any]:
        """Return all of it as plain values, to be kept beside the part of a step it tells of."""
        measured = {name: sorted(values.items()) for name, values in self._measured.items()}
        return {
            "rows": self.rows,
            "counts": self.counts,
            "dropped": dict(self.dropped),
            "samples": self.samples,
            "excerpts": self.excerpts,
            "advice": self.advice,
            "measured": measured,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Tally:
        """Return the tally whose state this is."""
        plain = {name: state[name] for name in ("rows", "counts", "samples", "excerpts", "advice")}
        tally = cls(**plain, dropped=Counter(state["dropped"]))
        tally._measured = {name: Counter(dict(map(tuple, values))) for name, values in state["measured"].items()}
        return tally

    def add(self, other: Tally) -> None:
        """Add what another part of the same step counted; numbers add up, the first samples stay."""
        for name, value in other.counts.items():
            self.counts[name] = _sum(self.counts.get(name), value)
        self.dropped.update(other.dropped)
        for name, samples in other.samples.items():
            kept = self.samples.setdefault(name, [])
            kept.extend(samples[: _SAMPLES - len(kept)])
        for name, texts in other.excerpts.items():
            for text in texts:
                self.excerpt(name, text)
        self.advice.extend(line for line in other.advice if line not in self.advice)
        for name, values in other._measured.items():
            self._measured.setdefault(name, Counter()).update(values)

    def _sample(self, name: str, sample: str | None) -> None:
        kept = self.samples.setdefault(name, []) if sample is not None else []
        if sample is not None and len(kept) < _SAMPLES:
            kept.append(sample)


def _sum(one: Any, other: Any) -> Any:
    """Add numbers, and numbers under the same keys."""
    if isinstance(other, dict):
        return {key: _sum((one or {}).get(key), other.get(key)) for key in {**(one or {}), **other}}
    return (one or 0) + (other or 0)


def _quantiles(histogram: dict[int, int]) -> dict[str, float]:
    total = sum(histogram.values())
    found: dict[str, float] = {}
    for name, share in _QUANTILES.items():
        seen, wanted = 0, max(1, -int(-share * total // 1))
        for value, amount in histogram.items():
            seen += amount
            if seen >= wanted:
                found[name] = value
                break
    return {**found, "mean": round(sum(value * amount for value, amount in histogram.items()) / total, 2)}


@dataclass(frozen=True)
class Identity:
    """All that a step's output depends on."""

    step: str
    version: int
    settings: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    """Upstream file -> SHA-256."""

    @property
    def fingerprint(self) -> str:
        """A hash of all fields."""
        return content_hash([self.step, self.version, self.settings, self.seed, self.inputs])


def write_manifest(
    folder: Path, identity: Identity, tally: Tally, seconds: float, outside: dict[str, Any] | None = None
) -> None:
    """Describe the files of a finished step. Written last: its presence means that the step is complete."""
    outputs = {
        name: {"rows": rows, "bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
        for name, rows in tally.rows.items()
    }
    head = {"step": identity.step, "fingerprint": identity.fingerprint, "version": identity.version}
    body: dict[str, Any] = {
        "settings": identity.settings,
        "seed": identity.seed,
        "inputs": identity.inputs,
        "outputs": outputs,
    }
    if outside:
        body["outside"] = outside
    report = {
        "counts": tally.counts,
        "dropped": dict(sorted(tally.dropped.items())),
        "samples": tally.samples,
        "excerpts": tally.excerpts,
        "quantiles": tally.quantiles(),
        "seconds": round(seconds, 2),
    }
    write_json(folder / MANIFEST, {**head, **body, **report})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a step's manifest, or None if there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("outputs"), dict) else None


def why_stale(
    folder: Path, identity: Identity, files: Iterable[str], outside: dict[str, Any] | None = None
) -> str | None:
    """Say in a few words why a step has to run, or return None when its `files` are those it would write again.

    `outside` is what files of others look like now, what a local model that writes is (`writer`), or why else to run
    again (`because`); None leaves that out of the question.
    """
    if not folder.exists():
        return "not built yet"
    manifest = read_manifest(folder)
    if manifest is None:
        return "it was interrupted, or its manifest is gone"
    if manifest.get("fingerprint") != identity.fingerprint:
        return _what_changed(manifest, identity)
    before = manifest.get("outside", {})
    if outside is not None and outside != before:
        if outside.get("writer") != before.get("writer"):
            return "what writes changed: weights, or a key of model"
        if outside.get("judge") != before.get("judge"):
            return "a file of data.labels.gates.support.model changed"
        return str(outside.get("because", "a file of the source changed"))
    problems = (_file_problem(folder / name, manifest["outputs"].get(name)) for name in files)
    return next((problem for problem in problems if problem), None)


def _what_changed(manifest: dict[str, Any], identity: Identity) -> str:
    if manifest.get("settings") != identity.settings:
        old = manifest.get("settings") or {}
        names = sorted(name for name in {*old, *identity.settings} if old.get(name) != identity.settings.get(name))
        return f"settings changed: {', '.join(names)}"
    if manifest.get("seed") != identity.seed:
        return f"seed changed from {manifest.get('seed')} to {identity.seed}"
    if manifest.get("inputs") != identity.inputs:
        return "what it is built from changed"
    return "it was written by another version of rag-ft"


def _file_problem(path: Path, entry: Any) -> str | None:
    if not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
        return f"its manifest says nothing of {path.name}"
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path.name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    return None if file_hash(path) == entry["sha256"] else f"{path.name} was edited"
