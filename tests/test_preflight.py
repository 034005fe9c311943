"""What is checked before the first training step: each mistake has its message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_model import TEMPLATES, tiny_tokenizer
from token_rows import encoder, only_stage, row

from data_builders.errors import RagFtError
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.training.preflight import preflight
from rag_ft.training.rows import encode_row


@pytest.mark.parametrize("template", TEMPLATES)
def test_sound_rows_pass_and_every_check_says_so(template: str, tmp_path: Path) -> None:
    one = encoder(template)
    rows = [row(3, [1]), row(4, [0], [1], [3], [])]
    lines = preflight(rows, [encode_row(each, one) for each in rows], one, only_stage(tmp_path))
    starts = ["labels: ", "end of turn: ", "beginning of sequence: ", "prompt: ", "length: median ", "disk: "]
    assert [next((s for s in starts if line.startswith(s)), line) for line in lines] == starts


def test_no_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RagFtError, match="there is no training row"):
        preflight([], [], encoder(), only_stage(tmp_path))


def test_empty_labels_are_an_error(tmp_path: Path) -> None:
    one = encoder()
    tokens = encode_row(row(1, [0]), one, ())
    with pytest.raises(RagFtError, match="row row has no token that carries loss"):
        preflight([row(1, [0])], [tokens], one, only_stage(tmp_path))


def test_an_end_of_turn_that_is_not_trained_is_an_error(tmp_path: Path) -> None:
    one = encoder()
    tokens = encode_row(row(4, [0], [1], [3], []), one, ("answer",))
    with pytest.raises(RagFtError, match=r"'<\|im_end\|>' carries no loss"):
        preflight([row(4, [0], [1], [3], [])], [tokens], one, only_stage(tmp_path))


def test_two_beginnings_of_sequence_are_an_error(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("llama3")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    one = Encoder(tokenizer, PromptSettings(), {})
    with pytest.raises(RagFtError, match=r"begins with more than one '<\|begin_of_text\|>'"):
        preflight([row(1, [0])], [encode_row(row(1, [0]), one)], one, only_stage(tmp_path))


def test_a_tokenizer_that_reads_joined_text_differently_is_an_error(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer()
    # as tokenizers of the Llama 2 kind: a space is put in front of every text, so also in front of every segment
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    one = Encoder(tokenizer, PromptSettings(), {})
    with pytest.raises(RagFtError, match="tokenised segment by segment differs from the whole text at token"):
        preflight([row(2, [0])], [encode_row(row(2, [0]), one)], one, only_stage(tmp_path))


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**8))
    one = encoder()
    with pytest.raises(RagFtError, match=r"only 0\.10 GB are free .* Set runs_dir to another disk"):
        preflight([row(1, [0])], [encode_row(row(1, [0]), one)], one, only_stage(tmp_path))
