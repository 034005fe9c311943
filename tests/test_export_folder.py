"""Folders that are exported to: whole or not at all, and nothing is deleted in them that no export wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_model import leftovers

from data_builders.errors import RagFtError
from rag_ft.export.folder import check_place, record, written_whole

DEAD = 2**22 + 1  # no process has this number


def half_written(folder: Path) -> None:
    with written_whole(folder) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "weights").write_text("half")
        raise KeyboardInterrupt


def test_an_export_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    with written_whole(folder) as temporary:
        (temporary / "weights").write_text("one")
    (tmp_path / f".export.{DEAD}.tmp").mkdir()  # of an export that was killed
    with pytest.raises(KeyboardInterrupt, match="the same command begins anew"):
        half_written(folder)
    assert (folder / "weights").read_text() == "one"
    with written_whole(folder) as temporary:
        (temporary / "weights").write_text("two")
    assert (folder / "weights").read_text() == "two"
    assert leftovers(tmp_path) == []


def test_an_export_killed_while_it_took_the_place_of_another_loses_neither(tmp_path: Path) -> None:
    folder, before = tmp_path / "export", tmp_path / f".export.{DEAD}.old"
    before.mkdir()
    (before / "weights").write_text("one")
    with pytest.raises(KeyboardInterrupt):
        half_written(folder)
    assert (folder / "weights").read_text() == "one"
    assert leftovers(tmp_path) == []


def test_an_export_leaves_one_that_is_being_written_alone(tmp_path: Path) -> None:
    other = tmp_path / f".export.{os.getppid()}.tmp"  # of a process that is alive
    other.mkdir()
    with written_whole(tmp_path / "export") as temporary:
        (temporary / "weights").write_text("two")
    assert other.is_dir()


def test_where_a_link_leads_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "large disk/export").mkdir(parents=True)
    link = tmp_path / "export"
    link.symlink_to(tmp_path / "large disk/export")
    with written_whole(link) as temporary:
        (temporary / "weights").write_text("two")
        assert temporary.parent == (tmp_path / "large disk").resolve()
    assert link.is_symlink()
    assert (tmp_path / "large disk/export/weights").read_text() == "two"


def test_only_what_an_export_wrote_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "export"
    with written_whole(folder) as temporary:
        (temporary / "weights").write_text("one")
        record(temporary, {"form": "merged"})
    check_place(folder)
    (folder / "notes").mkdir()
    (folder / "notes/mine.txt").write_text("all of it")
    with pytest.raises(RagFtError, match=r"the folder holds notes/mine\.txt, which is not of the earlier export"):
        check_place(folder)
    stranger = tmp_path / "stranger"  # a file of this name is not always ours
    stranger.mkdir()
    (stranger / "export.json").write_text('["something else"]')
    with pytest.raises(RagFtError, match=r"the folder holds export\.json, and no export\.json of an earlier export"):
        check_place(stranger)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for inside in (Path(), tmp_path / "empty"):
        with pytest.raises(RagFtError, match="you are inside this one"):
            check_place(inside)
