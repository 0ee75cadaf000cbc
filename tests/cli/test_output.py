"""Files that commands write: all or none, and never over a user's own."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from reconciler.cli.output import write_files, write_kubeconfig
from reconciler.errors import ConfigurationError
from tests.cli.projects import snapshot


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(4))
def test_files_that_cannot_all_be_written_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int
) -> None:
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "two.py").write_text("2")
    calls, write = itertools.count(), Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        if next(calls) == at:
            raise error
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)
    files = {"one.py": "changed", "new/three.py": "3", "two.py": "changed", "new/below/four.py": "4"}
    with pytest.raises((ConfigurationError, KeyboardInterrupt)):
        write_files(tmp_path, files, known={"one.py": "1", "two.py": "2"})
    assert snapshot(tmp_path) == {"one.py": "1", "two.py": "2"}
    assert not (tmp_path / "new").exists()


def test_a_file_that_changed_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("changed by an editor")
    with pytest.raises(ConfigurationError, match="has just been changed by something else"):
        write_files(tmp_path, {"two.py": "2", "one.py": "changed"}, known={"one.py": "1"})
    assert snapshot(tmp_path) == {"one.py": "changed by an editor"}


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "two.py").symlink_to("nothing")
    with pytest.raises(ConfigurationError, match=r"two\.py exists, and is not overwritten"):
        write_files(tmp_path, {"one.py": "1", "two.py": "2"})
    assert [path.name for path in tmp_path.iterdir()] == ["two.py"]


def test_a_linked_file_is_changed_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "one.py").write_text("1")
    (tmp_path / "one.py").symlink_to("real/one.py")
    write_files(tmp_path, {"one.py": "changed"}, known={"one.py": "1"})
    assert (tmp_path / "one.py").is_symlink()
    assert snapshot(tmp_path) == {"one.py": "changed", "real/one.py": "changed"}


@pytest.mark.parametrize(
    ("present", "kept"),
    [
        (None, False),
        ("", False),
        ('{"clusters": [{"name": "reconciler"}]}', False),
        ("clusters:\n- name: control-plane\ncontexts: []\n", False),  # as 'kubectl config' writes it
        ("clusters:\n- name: production\n", True),
        ("clusters:\n- name: reconciler\n- name: production\n", True),
        ("notes", True),
        ("- [", True),
        ("\x00", True),
    ],
)
def test_only_a_kubeconfig_of_an_earlier_run_is_overwritten(tmp_path: Path, present: str | None, *, kept: bool) -> None:
    path = tmp_path / "config"
    if present is not None:
        path.write_text(present)
    if kept:
        with pytest.raises(ConfigurationError, match="is not that of an earlier run, so it is not overwritten"):
            write_kubeconfig(lambda path: path.write_text("new"), path)
    else:
        write_kubeconfig(lambda path: path.write_text("new"), path)
    assert path.read_text() == (present if kept else "new")
