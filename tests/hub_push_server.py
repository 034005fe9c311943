"""A small Hub on this machine that takes commits: who asks, repositories, LFS uploads; fails on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "T0ken" * 7
LARGE = (".safetensors", ".gguf", ".parquet", ".png")
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nd-4.0", "llama3.1", "gemma", "other")  # some of the Hub's list
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Commit:
    """The files of a branch after a commit, what this one sent of them, and its message."""

    sha: str
    files: dict[str, bytes]
    sent: list[str] = field(default_factory=list)
    message: str = ""


@dataclass
class Repository:
    private: bool
    branches: dict[str, list[Commit]]

    def add(self, branch: str, files: dict[str, bytes], sent: list[str], message: str) -> Commit:
        history = self.branches[branch]
        made = Commit(hashlib.sha1(f"{branch}{len(history)}{message}".encode()).hexdigest(), files, sent, message)
        history.append(made)
        return made


def repository(files: dict[str, bytes] | None = None, private: bool = False) -> Repository:
    """A repository as the Hub makes it: with one commit."""
    made = Repository(private, {"main": []})
    made.add("main", {".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})}, [], "initial commit")
    return made


@dataclass
class Hub:
    """`fault` is told method, path and how often that was asked before; it names what goes wrong, or nothing.

    Faults: a status; `reset` (the connection breaks before an answer); `half` (it breaks in the middle of an upload);
    `lost` (what was asked is done, but the answer does not arrive); `hang` (there is none while the Hub is up); a
    status with what is said to it; or a function, which is called, after which all goes on.
    """

    fault: Callable[[str, str, int], Any] = lambda method, path, tries: None
    me: dict[str, Any] = field(
        default_factory=lambda: {
            "type": "user",
            "name": "me",
            "orgs": [{"name": "lab", "roleInOrg": "write"}, {"name": "library", "roleInOrg": "read"}],
            "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": "write"}},
        }
    )
    repos: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    received: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)

    def files(self, name: str, kind: str = "model", branch: str = "main") -> dict[str, bytes]:
        return self.repos[kind, name].branches[branch][-1].files

    def commits(self, name: str, kind: str = "model", branch: str = "main") -> list[Commit]:
        """Return the commits after the first."""
        return self.repos[kind, name].branches[branch][1:]


@contextmanager
def used_by_client(hub: Hub, patch: Any) -> Iterator[Hub]:
    """Serve a Hub that huggingface_hub in this process takes for the only one, over LFS, with a token for it.

    Args:
        hub: what to serve.
        patch: pytest's monkeypatch.
    """
    from huggingface_hub import constants

    with serving(hub):
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # LFS over HTTP, which a small server can speak
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Return the environment of a process that knows no other Hub, whose cache and logins are in `home`."""
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return {**os.environ, **told, "HF_TOKEN": TOKEN, "NO_PROXY": "*"}


def failing(times: dict[str, list[Any]]) -> Callable[[str, str, int], Any]:
    """Return the faults of each request whose method and path hold the key, in the order it is asked."""

    def fault(method: str, path: str, tries: int) -> Any:
        planned = next((faults for key, faults in times.items() if key in f"{method} {path}"), [])
        return planned[tries] if tries < len(planned) else None

    return fault


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """A connection that breaks is what some tests want."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a Hub until the block ends."""
    server = Quiet(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def checked_card(content: str) -> tuple[int, Any]:
    """Answer as the Hub does to a card: its metadata are YAML, and their licence is one that it knows."""
    wrong = None if content.startswith("---\n") else "no metadata"
    licence = None if wrong else yaml.safe_load(content.split("---\n")[1]).get("license")
    if licence not in (None, *LICENCES):
        wrong = f'"license" must be one of [{", ".join(LICENCES)}]'
    return (400, {"errors": [{"message": wrong}]}) if wrong else (200, {})


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self.serve()

    def do_HEAD(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        with self.hub.lock:
            tries = self.hub.tries[asked]
            self.hub.tries[asked] += 1
            self.hub.asked.append(asked)
        fault = self.hub.fault(self.command, path, tries)
        if callable(fault):
            fault()
            fault = None
        length = int(self.headers["Content-Length"] or 0)
        if fault == "half":
            self.rfile.read(length // 2)
            return self.broken()
        body = self.rfile.read(length)
        if fault == "hang":
            self.hub.closing.wait(30)
        if fault in ("reset", "hang"):
            return self.broken()
        if isinstance(fault, (int, tuple)):
            status, said = fault if isinstance(fault, tuple) else (fault, f"fault {fault}")
            return self.answer(status, {"error": said})
        if not path.startswith("/lfs/") and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": f"Invalid credentials {self.headers['Authorization']}"})
        if "/resolve/" in path:
            return self.download(*path.strip("/").split("/resolve/"))
        status, told = self.handled(path.strip("/").split("/"), body)
        return self.broken() if fault == "lost" else self.answer(status, told)

    def handled(self, parts: list[str], body: bytes) -> tuple[int, Any]:
        if parts == ["api", "whoami-v2"]:
            return 200, self.hub.me
        if parts == ["api", "validate-yaml"]:
            return checked_card(json.loads(body)["content"])
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts[0] == "lfs":
            return self.upload(parts[1], body)
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self.batch(json.loads(body))
        if parts[0] == "api" and parts[1] in KINDS:
            return self.of_repository(KINDS[parts[1]], "/".join(parts[2:4]), parts[4:], body)
        return 404, {"error": f"no {self.path}"}

    def create(self, told: dict[str, Any]) -> tuple[int, Any]:
        name = f"{told['organization']}/{told['name']}"
        if (told.get("type", "model"), name) in self.hub.repos:
            return 409, {"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}
        self.hub.repos[told.get("type", "model"), name] = repository(private=told.get("visibility") == "private")
        return 200, {"url": f"{self.hub.url}/{name}"}

    def of_repository(self, kind: str, name: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        repo = self.hub.repos.get((kind, name))
        branch = "/".join(rest[1:]) or "main"
        if repo is not None and rest[:1] in (
            ["revision"],
            ["tree"],
        ):  # a commit may stand for the branch it is the head of
            heads = {history[-1].sha: name for name, history in repo.branches.items()}
            branch = heads.get(branch, branch)
        if repo is None:
            return 404, {"error": "Repository not found"}
        if rest[:1] == ["branch"]:
            if branch in repo.branches:
                return 409, {"error": "Reference already exists"}
            repo.branches[branch] = list(repo.branches["main"])
            return 200, {}
        if branch not in repo.branches:
            return 404, {"error": "Revision not found"}
        if rest[:1] == ["preupload"]:
            return 200, {"files": [self.mode(repo, branch, one) for one in json.loads(body)["files"]]}
        if rest[:1] == ["commit"]:
            where = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
            return self.commit(repo, branch, where, [json.loads(line) for line in body.splitlines()])
        head = repo.branches[branch][-1]
        if rest[:1] == ["tree"]:
            return 200, [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in head.files.items()
            ]
        files = [{"rfilename": path} for path in head.files]
        return 200, {"id": name, "sha": head.sha, "private": repo.private, "siblings": files}

    def mode(self, repo: Repository, branch: str, one: dict[str, Any]) -> dict[str, Any]:
        """Say how a file is to be sent; of one that is there, the hash by which git or LFS knows it."""
        large = one["path"].endswith(LARGE)
        there = repo.branches[branch][-1].files.get(one["path"])
        told = {"path": one["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if there is None:
            return told
        of_git = hashlib.sha1(b"blob %d\0" % len(there) + there).hexdigest()
        return {**told, "oid": hashlib.sha256(there).hexdigest() if large else of_git}

    def batch(self, told: dict[str, Any]) -> tuple[int, Any]:
        objects: list[dict[str, Any]] = []
        for one in told["objects"]:
            missing = one["oid"] not in self.hub.objects
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}?X-Amz-Signature=s3cret"}}}
            objects.append({**one, **(upload if missing else {})})
        return 200, {"transfer": "basic", "objects": objects}

    def upload(self, oid: str, body: bytes) -> tuple[int, Any]:
        assert parse_qs(urlsplit(self.path).query)["X-Amz-Signature"] == ["s3cret"]
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "these are other bytes"}
        with self.hub.lock:
            self.hub.objects[oid] = body
            self.hub.received[oid] += 1
        self.hub.arrived.set()
        return 200, {}

    def commit(self, repo: Repository, branch: str, where: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        head, header = repo.branches[branch][-1], lines[0]["value"]
        if header.get("parentCommit") not in (None, head.sha):
            return 412, {"error": "A commit has happened since"}
        files, sent = dict(head.files), []
        for line in lines[1:]:
            one = line["value"]
            sent.append(one["path"])
            if line["key"] == "lfsFile" and one["oid"] not in self.hub.objects:
                return 400, {"error": f"{one['path']} was never uploaded"}
            large = line["key"] == "lfsFile"
            files[one["path"]] = self.hub.objects[one["oid"]] if large else base64.b64decode(one["content"])
        made = repo.add(branch, files, sent, header["summary"])
        return 200, {"commitUrl": f"{where}/commit/{made.sha}", "commitOid": made.sha, "success": True}

    def download(self, name: str, rest: str) -> None:
        revision, _, path = rest.partition("/")
        repo = self.hub.repos.get(("model", name))
        commits = [commit for history in repo.branches.values() for commit in history] if repo else []
        there = repo.branches[revision][-1:] if repo and revision in repo.branches else []
        found = next((commit for commit in [*there, *commits] if there or commit.sha == revision), None)
        if found is None or path not in found.files:
            code = "RepoNotFound" if repo is None else "EntryNotFound" if found else "RevisionNotFound"
            return self.answer(404, {}, {"X-Error-Code": code, "X-Repo-Commit": found.sha if found else ""})
        content = found.files[path]
        etag = hashlib.sha1(content).hexdigest()
        return self.answer(200, content, {"X-Repo-Commit": found.sha, "ETag": f'"{etag}"'})

    def answer(self, status: int, told: Any, headers: dict[str, str] | None = None) -> None:
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def broken(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
