"""What keeps a device from starting is said in one line each: the state folder, its disk, its credentials."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Mqtt
from edge.out.mqtt.credentials import problems
from edge.store.folder import User, folder_problem, room_problem

NOBODY = User(65534, frozenset({65534}), "nobody")


def disk(**changes: Any) -> Any:
    """Give a `statvfs` of a disk with 1 GB free, but for `changes`."""
    values = {"f_flag": 0, "f_bavail": 250_000, "f_frsize": 4096, "f_files": 1000, "f_favail": 500} | changes
    return lambda path: SimpleNamespace(**values)


def test_a_folder_that_can_be_written_or_made_is_no_problem(tmp_path: Path) -> None:
    assert folder_problem(tmp_path) == ""
    assert folder_problem(tmp_path / "still" / "to be made") == ""


def test_a_file_system_that_is_mounted_read_only_is_named_with_the_setting(tmp_path: Path) -> None:
    problem = folder_problem(tmp_path, statvfs=disk(f_flag=os.ST_RDONLY))
    assert problem == f'outbox.folder = "{tmp_path}": its file system is mounted read-only'


def test_proc_where_no_file_can_be_made_is_found_unwritable_without_trying() -> None:
    assert "may not write" in folder_problem(Path("/proc/1"), NOBODY)


@pytest.mark.parametrize(
    ("mode", "may_write"), [(0o755, False), (0o757, True), (0o772, False), (0o773, True)]
)
def test_the_mode_decides_whether_another_user_may_write(tmp_path: Path, mode: int, may_write: bool) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    problem = folder_problem(folder, NOBODY)
    assert (problem == "") == may_write
    if problem:
        assert "user nobody may not write" in problem
        assert f"{mode:04o}" in problem


def test_the_group_decides_before_others_do(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o707)
    member = User(65534, frozenset({folder.stat().st_gid}))
    assert folder_problem(folder, member)
    folder.chmod(0o770)
    assert folder_problem(folder, member) == ""


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "is not a folder" in folder_problem(tmp_path / "state" / "microedge")


def test_a_full_disk_is_named_with_what_is_left_and_the_limit(tmp_path: Path) -> None:
    assert room_problem(tmp_path, statvfs=disk()) == ""
    problem = room_problem(tmp_path, statvfs=disk(f_bavail=700))
    assert problem == f'outbox.folder = "{tmp_path}": the disk has 2 MB left, less than 10 MB'
    assert "inodes" in room_problem(tmp_path, statvfs=disk(f_favail=0))
    assert room_problem(tmp_path, statvfs=disk(f_files=0, f_favail=0)) == ""


def test_every_credential_that_others_may_read_is_named_at_once(tmp_path: Path) -> None:
    for name in ("password", "ca.pem"):
        (tmp_path / name).write_text("text\n")
    (tmp_path / "password").chmod(0o644)
    config = Mqtt(tls=True, password_file=str(tmp_path / "password"), ca_file=str(tmp_path / "ca.pem"))
    found = problems(config)
    assert len(found) == 2
    assert "mode 0644" in found[0]
    assert "chmod 0640" in found[0]
    assert "mqtt.ca_file" in found[1]
    (tmp_path / "password").chmod(0o600)
    assert len(problems(config)) == 1
    assert problems(Mqtt()) == []
