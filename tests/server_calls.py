"""Calls to a test server through the one client, and what it says to them."""

from __future__ import annotations

from typing import Any

from openai_server import Messages, Reply, Server

from data_builders.servers import Call
from data_builders.servers import Reply as Answer
from data_builders.servers.client import server_asker, teacher_writing
from data_builders.servers.settings import TeacherSettings

KEY = "sk-secret-4711"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}


def teacher(server: Server, **changes: Any) -> TeacherSettings:
    fields = {"base_url": server.url, "model": "tiny", "timeout": 20.0, "api_key_env": "RAG_FT_TEST_KEY"}
    return TeacherSettings(**fields | changes)


def call(name: str, schema: Any = None) -> Call:
    return Call(name, ({"role": "user", "content": name},), schema)


def echo(messages: Messages, body: Any) -> Reply:
    return Reply(messages[-1]["content"].upper(), output_tokens=3)


def ask(settings: TeacherSettings, *names: str, schema: Any = None) -> dict[str, Answer]:
    asker = server_asker(settings, teacher_writing(settings))
    found = [(asked.key, reply) for asked, reply in asker(call(name, schema) for name in names)]
    assert sorted(key for key, _ in found) == sorted(names)
    return dict(found)


def said(messages: Messages) -> str:
    return messages[-1]["content"]
