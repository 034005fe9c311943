"""One commit of files to a repository of the Hub: rights first, then bytes; patient, and safe to repeat.

huggingface_hub tries uploads of large files again by itself; the short requests around them it asks once. Those are
repeated here, the commit among them: asked again, it finds what has arrived and leaves it out.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from data_builders.errors import RagFtError
from rag_ft.export.push_files import PushFile
from rag_ft.export.push_scan import Secrets

PAUSES = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Seconds before each further try of a short request."""
WAITS = {"connect": 30.0, "write": 120.0, "read": 300.0}
"""Seconds until a request counts as broken off: nobody there, nothing taken, nothing answered."""
_BRANCH = re.compile(r"[A-Za-z0-9][\w./-]*")
_IN_PASSING = (408, 429, 500, 502, 503, 504)
_LOGIN = "set HF_TOKEN to one with write access (huggingface.co/settings/tokens), or log in with `hf auth login`"
_CHATTY = ("huggingface_hub.utils._http", "huggingface_hub.hf_api")

Say = Callable[[str], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Target:
    """Where files go.

    Attributes:
        repo: ORGANISATION/NAME.
        kind: a model's repository or a data set's.
        private: a new repository is not shown to others; one that is public already is refused.
        revision: branch; made where there is none.
    """

    repo: str
    kind: Literal["model", "dataset"] = "model"
    private: bool = False
    revision: str = "main"


@dataclass(frozen=True)
class Pushed:
    """What a push did: where the commit is to be seen, and whether there was anything to commit."""

    url: str
    changed: bool


def check_target(target: Target) -> None:
    """Check the names of repository and branch, as far as that is possible without asking the Hub.

    Raises:
        RagFtError: it is none, or huggingface_hub is not installed.
    """
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError as error:
        raise RagFtError(
            "a push needs the package huggingface_hub, which is not installed. Run `pip install 'rag-ft[hub]'`."
        ) from error
    if target.repo.count("/") != 1:
        name = "NAME" if "/" in target.repo else target.repo
        raise RagFtError(
            f"--repo {target.repo}: a repository is named by its owner and its name. Write --repo ORG/{name}."
        )
    if not _BRANCH.fullmatch(target.revision) or ".." in target.revision:
        raise RagFtError(
            f"--revision {target.revision!r}: a branch is named with letters, digits and . _ - / only. Write for "
            "example --revision try-2, or leave it out."
        )
    try:
        validate_repo_id(target.repo)
    except HFValidationError as error:
        raise RagFtError(f"--repo {target.repo}: {str(error).splitlines()[0]} Write --repo ORG/NAME.") from error


def kept_token() -> str | None:
    """Return the token that `hf auth login` has left on this machine, without asking anybody to renew it."""
    from huggingface_hub import constants

    try:
        return Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def push(target: Target, files: Sequence[PushFile], message: str, secrets: Secrets, say: Say) -> Pushed:
    """Put files into a repository in one commit; what is there already is sent no second time.

    Args:
        target: where to.
        files: what; other files of the repository stay as they are.
        message: of the commit.
        secrets: taken out of whatever the Hub answers.
        say: takes the lines a person reads.

    Raises:
        RagFtError: no token, no right to write, or the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="rag-ft")
    with _told(target, secrets), _quiet(say), _bounded():
        check_rights(api, target, say)
        before = _prepared(api, target, say)
        commit = _committed(api, target, files, message, before, say)
    return Pushed(str(commit.commit_url), commit.oid != before)


def check_rights(api: Any, target: Target, say: Say) -> None:
    """Ask the Hub who we are, and make sure that this user may write to the repository's owner.

    Raises:
        RagFtError: the token may only read, or the owner is neither the user nor one of the user's organisations.
    """
    me = patiently(api.whoami, say)
    token = (me.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise RagFtError(f"--repo {target.repo}: your token may only read. For a push, {_LOGIN}.")
    owner = target.repo.partition("/")[0]
    roles = {str(one.get("name")): one.get("roleInOrg") for one in me.get("orgs") or () if isinstance(one, dict)}
    names = [str(me.get("name")), *roles]
    if owner.lower() not in [name.lower() for name in names]:
        raise RagFtError(
            f"--repo {target.repo}: {owner} is not yours to write to. You are {me.get('name')}, so write for example "
            f"--repo {me.get('name')}/{target.repo.partition('/')[2]}"
            + (f" (or one of {', '.join(sorted(roles))})." if roles else ".")
        )
    if roles.get(owner) == "read":
        raise RagFtError(
            f"--repo {target.repo}: in {owner} you may only read. Ask its administrators for the role of a "
            f"contributor, or push to --repo {me.get('name')}/NAME."
        )


def _prepared(api: Any, target: Target, say: Say) -> str | None:
    """Make repository and branch where there are none; return the commit that the branch is at."""
    repo, kind = target.repo, target.kind
    private = target.private or None  # None: what the owner has as the default
    patiently(lambda: api.create_repo(repo, repo_type=kind, private=private, exist_ok=True), say)
    about = patiently(lambda: api.repo_info(repo, repo_type=kind), say)
    if target.private and not about.private:
        raise RagFtError(
            f"--private: {repo} is there already and everybody can see it. Make it private in its settings on the "
            "Hub, give another --repo, or leave --private out."
        )
    if target.revision == "main":
        return about.sha
    patiently(lambda: api.create_branch(repo, branch=target.revision, repo_type=kind, exist_ok=True), say)
    return patiently(lambda: api.repo_info(repo, repo_type=kind, revision=target.revision), say).sha


def _operations(files: Sequence[PushFile]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.content) for file in files]


def _committed(api: Any, target: Target, files: Sequence[PushFile], message: str, before: str | None, say: Say) -> Any:
    """Send the large files, then commit all; after a try whose answer was lost, nothing is committed twice."""
    operations = _operations(files)
    # tries again by itself; what a push before has sent is known to the Hub
    api.preupload_lfs_files(target.repo, operations, repo_type=target.kind, revision=target.revision)
    tries = iter([operations])  # operations made anew ask the Hub again what it has

    def commit() -> Any:
        return api.create_commit(
            target.repo,
            next(tries, None) or _operations(files),
            commit_message=message,
            repo_type=target.kind,
            revision=target.revision,
            parent_commit=before,
        )

    return patiently(commit, say)


def patiently(call: Callable[[], Result], say: Say) -> Result:
    """Call until it is answered: again where the connection breaks or the server is busy, after ever longer pauses.

    Raises:
        httpx.HTTPError: what the last of `len(PAUSES) + 1` tries raised, or one that another try would not change.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    for number, pause in enumerate(PAUSES, start=1):
        try:
            return call()
        except HfHubHTTPError as error:
            if _status(error) not in _IN_PASSING:
                raise
            asked = error.response.headers.get("Retry-After", "")
            pause = min(float(asked), 60.0) if re.fullmatch(r"\d+", asked) else pause
            reason = f"the Hub answers with error {_status(error)}"
        except httpx.TransportError:
            reason = "the connection to the Hub broke"
        say(f"  {reason}: trying again in {pause:g} s ({number} of {len(PAUSES)})")
        time.sleep(pause)
    return call()


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


@contextmanager
def _told(target: Target, secrets: Secrets) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence without secrets."""
    import httpx
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise RagFtError(f"--repo {target.repo}: there is no token of the Hub. Please {_LOGIN}.") from error
    except OfflineModeIsEnabled as error:
        raise RagFtError(
            f"--repo {target.repo}: HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it, or look at what would "
            "be sent with --dry-run."
        ) from error
    except (httpx.HTTPError, RuntimeError, ValueError, OSError) as error:
        raise RagFtError(secrets.hidden(_sentence(target, error))) from None  # the cause may show what is hidden


def _sentence(target: Target, error: BaseException) -> str:
    """Say what the Hub's refusal means and what to do. `error` may wrap the one that tells."""
    import httpx

    inner = next((each for each in _causes(error) if isinstance(each, httpx.HTTPError)), error)
    status, head = _status(inner), f"--repo {target.repo}: "
    if status in _ABOUT:
        return head + _ABOUT[status].format(login=_LOGIN, revision=target.revision)
    if status in _IN_PASSING or isinstance(inner, (httpx.TransportError, ConnectionError, TimeoutError)):
        what = f"the Hub answers with error {status}" if status else f"the connection broke ({type(inner).__name__})"
        return f"{head}{what}, again and again. Repeat the command later: it goes on with what has not arrived yet."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{head}the Hub refused ({' '.join(lines[:3]) or type(error).__name__}). Mend that and repeat the command."


_ABOUT = {
    401: "the Hub does not accept your token. Please {login}.",
    403: "your token has no right to write there. Please {login}; a fine-grained one has to name this repository.",
    404: "the Hub has no such repository for you, or no branch {revision}. Check both names, and {login}.",
    402: "the Hub asks for payment (private storage may be full). Free some, or push without --private.",
    412: "somebody else pushed to {revision} at the same moment. Repeat the command.",
    413: "the Hub says that this is too large. Leave files out, or export in smaller ones.",
}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def _bounded() -> Iterator[None]:
    """Give every request a time to be answered in: huggingface_hub waits for ever, also on a line that is dead."""
    import httpx
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def bounded() -> httpx.Client:
        client = default_client_factory()
        client.timeout = httpx.Timeout(WAITS["read"], connect=WAITS["connect"], write=WAITS["write"])
        return client

    set_client_factory(bounded)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


@contextmanager
def _quiet(say: Say) -> Iterator[None]:
    """Keep addresses of uploads, which are keys to them, out of the terminal; pass on that something is tried again.

    Bars are shown in a terminal only.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    class Short(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            text = record.getMessage()
            if text.startswith(("Retrying in", "Rate limited")):
                say(f"  the upload broke off. {text}")
            return False

    loggers, short = [logging.getLogger(name) for name in _CHATTY], Short()
    silent = not sys.stderr.isatty() and not are_progress_bars_disabled()
    for logger in loggers:
        logger.addFilter(short)
    if silent:
        disable_progress_bars()
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(short)
        if silent:
            enable_progress_bars()
