"""A recipe over the hand-written world whose labels a teacher writes, and where its data lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from openai_server import Server

KEY = "sk-secret-4711"


def recipe(folder: Path, server: Server | None, *, contexts: dict[str, Any] | None = None, **labels: Any) -> Path:
    """Write a recipe over the hand-written world: 13 questions to train on, 7 to validate."""
    endpoint = {
        "base_url": server.url if server else "http://127.0.0.1:1/v1",
        "model": "teacher-1",
        "api_key_env": "RAG_FT_TEST_KEY",
        "structured": "json_schema",
        **labels.pop("endpoint", {}),
    }
    told = {
        "name": "taught",
        "runs_dir": str(folder / "runs"),
        "data": {
            "sources": {"world": {"kind": "invented_world"}},
            "contexts": {"passages": {"kind": "fixed", "count": 2}, "gold_probability": 1.0, **(contexts or {})},
            "labels": {"kind": "teacher", "endpoint": endpoint, **labels},
            "processes": 1,
        },
        "model": {"prompt": {"style": labels.get("style", "self_reasoning")}},
    }
    path = folder / "taught.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def data(folder: Path) -> Path:
    return folder / "runs/taught/data"
