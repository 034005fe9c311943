"""`rag-ft push` with the real client of the Hub against a Hub on this machine that fails on demand."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_push_server import TOKEN, Hub, environment, failing, repository, used_by_client
from tiny_model import copied_run

from rag_ft.recipe.load import load_recipe

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def recipe(tiny_weights: Path, trained_run: Path, tmp_path: Path) -> Path:
    return copied_run(tmp_path, tiny_weights, trained_run, export={"licence": "mit"})


@pytest.fixture
def run(recipe: Path) -> Path:
    return recipe.parent / "runs/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used_by_client(Hub(), monkeypatch) as served:
        yield served


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


class TestACommit:
    def test_adapter_card_figure_recipe_manifests_and_contract_arrive_in_one(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb
    ) -> None:
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0, out + err
        [commit] = hub.commits("me/tiny")
        manifests = {f"manifests/{step}.json" for step in ("source", "clean", "pools", "contexts", "labels")}
        wanted = {"README.md", "recipe.yaml", "adapter_config.json", WEIGHTS, "prompt.json", "tokenizer.json"}
        assert (wanted | manifests) <= set(commit.sent)
        files = hub.files("me/tiny")
        assert files[WEIGHTS] == (run / "adapter" / WEIGHTS).read_bytes()
        assert json.loads(files["prompt.json"])["prompt_hash"] in files["README.md"].decode()
        assert f"pushed: {hub.url}/me/tiny/commit/{commit.sha}" in out

    def test_what_was_pushed_loads_with_peft(
        self, hub: Hub, recipe: Path, run_verb: Verb, tiny_weights: Path, tmp_path: Path, run: Path
    ) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        folder = tmp_path / "downloaded"
        for name, content in hub.files("me/tiny").items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = torch.tensor([tokenizer("Question: When was the town founded?")["input_ids"]])
        with torch.no_grad():
            theirs, ours = (
                PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_weights), where)(ids).logits
                for where in (folder, run / "adapter")
            )
        assert torch.equal(theirs, ours)

    def test_what_was_pushed_answers_by_its_id_as_the_run_does(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb, tiny_weights: Path, tmp_path: Path
    ) -> None:
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        script = f"""
from rag_ft import load_generator
for place in ("me/tiny", {str(run)!r}):
    generator = load_generator(place, base={str(tiny_weights)!r}, max_new_tokens=12)
    print(repr(generator.answer("When was Aldo founded?", ["Aldo was founded in 1801.", "Berin is red."]).output))
"""
        process = [sys.executable, "-c", script]
        done = subprocess.run(process, env=environment(hub, tmp_path / "home"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        theirs, ours = done.stdout.splitlines()
        assert theirs == ours
        assert [asked for asked in hub.asked if asked.endswith("/prompt.json")]

    def test_pushing_again_sends_nothing(self, hub: Hub, recipe: Path, run_verb: Verb) -> None:
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        hub.asked.clear()
        code, out, _ = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0
        assert "nothing to do" in out
        assert len(hub.commits("me/tiny")) == 1
        assert not [asked for asked in hub.asked if asked.startswith("PUT ") or "/commit/" in asked]

    def test_only_what_changed_is_committed_and_other_files_stay(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb
    ) -> None:
        hub.repos["model", "me/tiny"] = repository({"notes.md": b"mine"})
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        template = run / "adapter/chat_template.jinja"
        template.write_text(template.read_text() + "{# changed #}")
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        assert hub.commits("me/tiny")[-1].sent == ["chat_template.jinja"]
        assert hub.files("me/tiny")["notes.md"] == b"mine"

    def test_a_branch_is_made_and_main_is_left_alone(self, hub: Hub, recipe: Path, run_verb: Verb) -> None:
        code, out, err = run_verb("push", recipe, "--repo", "lab/tiny", "--revision", "try-2")
        assert code == 0, out + err
        assert WEIGHTS in hub.files("lab/tiny", branch="try-2")
        assert hub.commits("lab/tiny") == []

    def test_private_makes_a_private_repository_and_never_adds_to_a_public_one(
        self, hub: Hub, recipe: Path, run_verb: Verb, refused: Refused
    ) -> None:
        assert run_verb("push", recipe, "--repo", "me/hidden", "--private")[0] == 0
        assert hub.repos["model", "me/hidden"].private
        hub.repos["model", "me/shown"] = repository()
        assert "everybody can see it" in refused("push", recipe, "--repo", "me/shown", "--private")
        assert hub.commits("me/shown") == []


class TestExports:
    @pytest.fixture
    def merged(self, run: Path, tiny_weights: Path) -> Path:
        folder = run / "export/merged"
        shutil.copytree(tiny_weights, folder)
        (folder / "README.md").write_text("of the export")
        compared = {"prompts": 8, "positions": 82, "greatest": 0.0125, "span": 9.4, "same_first": 81}
        (folder / "export.json").write_text(json.dumps({"form": "merged", "dtype": "float32", "compared": compared}))
        return folder

    def test_merged_weights_are_sent_with_a_card_of_their_own(
        self, hub: Hub, recipe: Path, run: Path, merged: Path, run_verb: Verb
    ) -> None:
        code, out, err = run_verb("push", recipe, "--repo", "me/whole", "--what", "merged")
        assert code == 0, out + err
        files = hub.files("me/whole")
        assert files["model.safetensors"] == (merged / "model.safetensors").read_bytes()
        assert json.loads(files["prompt.json"])["prompt_hash"] == contract(run)["prompt_hash"]
        card = files["README.md"].decode()
        assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
        assert "with a LoRA adapter merged into its weights" in card
        assert "AutoModelForCausalLM.from_pretrained(folder" in card
        assert "PeftModel" not in card
        assert "Saved as float32. Compared with the adapter at 82 tokens of answers to 8 prompts" in card
        assert "at 81 of them, and the greatest difference of a logit was 0.013, of a range of 9.4." in card

    def test_an_export_from_before_the_last_training_is_refused(
        self, recipe: Path, run: Path, merged: Path, refused: Refused
    ) -> None:
        os.utime(merged / "export.json", (1, 1))
        told = refused("push", recipe, "--repo", "me/whole", "--what", "merged", "--dry-run")
        assert "before the last training" in told
        assert "`rag-ft export RECIPE merged`" in told


def contract(run: Path) -> Any:
    return json.loads((run / "adapter/prompt.json").read_text())


class TestADryRun:
    def test_files_are_listed_with_sizes_and_nothing_is_asked(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny", "--dry-run")
        assert code == 0, out + err
        size = (run / "adapter" / WEIGHTS).stat().st_size
        assert re.search(rf"  {WEIGHTS} +{size / 1000:.1f} kB\n", out)
        assert "dry run: nothing was sent" in out
        assert hub.asked == []


class TestRightsComeFirst:
    def test_no_token_is_told_how_to_get_one(
        self, hub: Hub, recipe: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        told = refused("push", recipe, "--repo", "me/tiny")
        assert "HF_TOKEN" in told
        assert "hf auth login" in told
        assert hub.asked == []

    def test_a_token_that_is_not_accepted_is_never_repeated(
        self, hub: Hub, recipe: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = "hf_" + "wrOng" * 7
        monkeypatch.setenv("HF_TOKEN", wrong)
        told = refused("push", recipe, "--repo", "me/tiny")
        assert "does not accept your token" in told
        assert wrong not in told

    @pytest.mark.parametrize(
        ("repo", "words"),
        [
            ("stranger/tiny", "--repo me/tiny (or one of lab, library)"),
            ("library/tiny", "in library you may only read"),
            ("tiny", "--repo ORG/tiny"),
            ("me/a/b", "Write --repo ORG/NAME"),
            ("me/a b", "Write --repo ORG/NAME"),
        ],
    )
    def test_a_repository_that_is_not_ours_is_refused_before_anything_is_sent(
        self, hub: Hub, recipe: Path, refused: Refused, repo: str, words: str
    ) -> None:
        assert words in refused("push", recipe, "--repo", repo)
        assert set(hub.asked) <= {"GET /api/whoami-v2"}

    @pytest.mark.parametrize("branch", ["", "-x", "a b", "a/../b", "a\nb"])
    def test_a_branch_that_cannot_be_one_is_refused_before_anything_is_sent(
        self, hub: Hub, recipe: Path, refused: Refused, branch: str
    ) -> None:
        told = refused("push", recipe, "--repo", "me/tiny", f"--revision={branch}")
        assert "or leave it out" in told
        assert hub.asked == []

    def test_a_token_that_may_only_read_is_refused(self, hub: Hub, recipe: Path, refused: Refused) -> None:
        hub.me["auth"]["accessToken"]["role"] = "read"
        assert "your token may only read" in refused("push", recipe, "--repo", "me/tiny")
        assert hub.asked == ["GET /api/whoami-v2"]

    def test_a_forbidden_commit_says_what_the_token_lacks(self, hub: Hub, recipe: Path, refused: Refused) -> None:
        hub.fault = failing({"/preupload/": [403] * 9})
        assert "your token has no right to write there" in refused("push", recipe, "--repo", "me/tiny")
        assert hub.received == {}

    def test_offline_says_what_to_unset(
        self, hub: Hub, recipe: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "Unset it, or look at what would be sent with --dry-run" in refused("push", recipe, "--repo", "me/tiny")


def test_without_huggingface_hub_the_extra_is_named(
    recipe: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    assert "pip install 'rag-ft[hub]'" in refused("push", recipe, "--repo", "me/tiny", "--dry-run")


class TestABrokenConnection:
    @pytest.mark.parametrize("fault", [500, 503, 429, "reset"])
    @pytest.mark.parametrize("where", ["whoami", "repos/create", "/preupload/", "PUT /lfs/", "/commit/"])
    def test_what_fails_twice_is_tried_again_after_longer_pauses(
        self, hub: Hub, recipe: Path, run_verb: Verb, pauses: list[float], where: str, fault: Any
    ) -> None:
        hub.fault = failing({where: [fault, fault]})
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0, out + err
        assert len(hub.commits("me/tiny")) == 1
        assert pauses[:2] == [1.0, 2.0]
        assert "1 of 5" in out or "1/5" in out

    @pytest.mark.parametrize("where", ["PUT /lfs/", "/commit/"])
    def test_a_hub_that_does_not_answer_is_asked_again(
        self, hub: Hub, recipe: Path, run_verb: Verb, pauses: list[float], monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        from rag_ft.export import push_hub

        monkeypatch.setattr(push_hub, "WAITS", {"connect": 10.0, "write": 10.0, "read": 2.0})
        hub.fault = failing({where: ["hang"]})
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0, out + err
        assert len(hub.commits("me/tiny")) == 1
        assert pauses[:1] == [1.0]

    def test_an_upload_that_breaks_in_the_middle_is_sent_again_whole(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb, pauses: list[float]
    ) -> None:
        hub.fault = failing({"PUT /lfs/": ["half"]})
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0, out + err
        assert hub.files("me/tiny")[WEIGHTS] == (run / "adapter" / WEIGHTS).read_bytes()
        assert pauses
        assert "s3cret" not in out + err  # the address of an upload is the key to it

    def test_a_commit_whose_answer_is_lost_is_not_made_twice(
        self, hub: Hub, recipe: Path, run_verb: Verb, pauses: list[float]
    ) -> None:
        hub.fault = failing({"/commit/": ["lost"]})
        code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
        assert code == 0, out + err
        [commit] = hub.commits("me/tiny")
        assert f"{commit.sha}" in out
        assert "pushed: " in out
        assert len(pauses) == 1

    def test_a_hub_that_stays_away_ends_in_one_sentence_and_the_next_push_goes_on(
        self, hub: Hub, recipe: Path, run_verb: Verb, refused: Refused, pauses: list[float]
    ) -> None:
        hub.fault = failing({"/commit/": [503] * 20})
        told = refused("push", recipe, "--repo", "me/tiny")
        assert "Repeat the command later" in told
        assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
        hub.fault = failing({})
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        assert set(hub.received.values()) == {1}

    @pytest.mark.parametrize("where", ["PUT /lfs/", "/commit/"])
    def test_a_push_that_was_killed_goes_on_without_sending_the_same_bytes(
        self, hub: Hub, recipe: Path, run: Path, run_verb: Verb, tmp_path: Path, where: str
    ) -> None:
        (run / "adapter/accuracy.png").write_bytes(b"a second large file")
        process: list[subprocess.Popen[str]] = []
        uploads = itertools.count()

        def fault(method: str, path: str, tries: int) -> Any:
            if where not in f"{method} {path}" or (method == "PUT" and next(uploads) == 0):
                return None
            hub.arrived.wait(30)  # of two uploads at once one is whole
            process[0].send_signal(signal.SIGKILL)
            return "half"

        hub.fault = fault
        command = [sys.executable, "-m", "rag_ft", "push", str(recipe), "--repo", "me/tiny"]
        own = environment(hub, tmp_path / "home")
        process.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True))
        assert process[0].wait(60) == -signal.SIGKILL
        assert len(hub.received) == (1 if where == "PUT /lfs/" else 2)
        assert hub.commits("me/tiny") == []
        hub.fault = failing({})
        assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
        assert list(hub.received.values()) == [1, 1]

    def test_somebody_else_s_commit_in_between_is_not_overwritten(
        self, hub: Hub, recipe: Path, refused: Refused
    ) -> None:
        def other() -> None:
            hub.repos["model", "me/tiny"].add("main", {"README.md": b"theirs"}, ["README.md"], "theirs")

        hub.fault = failing({"/preupload/": [other]})
        assert "somebody else pushed" in refused("push", recipe, "--repo", "me/tiny")
        assert hub.files("me/tiny")["README.md"] == b"theirs"

    def test_what_the_hub_says_is_told_without_the_token(self, hub: Hub, recipe: Path, refused: Refused) -> None:
        hub.fault = failing({"/commit/": [(418, f"I know {TOKEN}")]})
        told = refused("push", recipe, "--repo", "me/tiny")
        assert "I know ***" in told
        assert TOKEN not in told


def test_recipe_and_configuration_name_no_folder_of_this_machine(
    hub: Hub, recipe: Path, run_verb: Verb, tmp_path: Path
) -> None:
    assert run_verb("push", recipe, "--repo", "me/tiny")[0] == 0
    files = hub.files("me/tiny")
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name
        assert str(Path.home()).encode() not in content, name
    (tmp_path / "again.yaml").write_bytes(files["recipe.yaml"])
    again = load_recipe(tmp_path / "again.yaml")
    assert (again.name, again.model.weights) == ("tiny", "./tiny-llama")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "./tiny-llama"
