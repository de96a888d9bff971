"""Files of a run: whole and of one run, wherever the process ends."""

import errno
import os

import pytest

from jaxrelu.cli.output import probe, publish

NAMES = ("path.npz", "path.png", "summary.json")


def contents(run):
    return {name: f"{run} {name}".encode() for name in NAMES}


def found(folder):
    """The visible files and what they hold."""
    return {
        file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")
    }


class Killed(BaseException):
    """What ends the process: nothing may catch it, and nothing works afterwards."""


@pytest.fixture
def kill_at(monkeypatch):
    """Lets a number of calls to the file system pass, then refuses them all."""
    names = ("mkdir", "fsync", "unlink", "replace", "rmdir", "open", "scandir", "lstat")
    honest = {name: getattr(os, name) for name in names}
    left = [0]

    def limited(name):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return honest[name](*arguments, **options)

        return call

    def kill(after):
        left[0] = after
        for name in names:
            monkeypatch.setattr(os, name, limited(name))

    yield kill
    monkeypatch.undo()


@pytest.mark.parametrize("figure", [True, False])
def test_killed_anywhere_no_summary_vouches_for_another_run(tmp_path, monkeypatch, kill_at, figure):
    new = contents("new")
    if not figure:
        new["path.png"] = None
    whole = [contents("old"), {name: text for name, text in new.items() if text is not None}]
    states = []
    for after in range(100):
        folder = tmp_path / str(after)
        folder.mkdir()
        publish(folder, contents("old"))
        kill_at(after)
        try:
            publish(folder, new)
        except Killed:
            ended = False
        else:
            ended = True
        monkeypatch.undo()
        state = found(folder)
        if "summary.json" in state:
            assert state in whole
        else:  # each file is whole, and no summary says that they belong together
            assert all(state[name] in (whole[0][name], whole[1].get(name)) for name in state)
        states.append(state)
        if ended:
            break
    assert ended
    assert states[0] == whole[0]
    assert states[-1] == whole[1]
    assert {len(state) for state in states} >= {2, 3}  # it was caught between the files, too


@pytest.mark.parametrize("number", range(3))
def test_full_disk_keeps_the_run_before(tmp_path, monkeypatch, number):
    publish(tmp_path, contents("old"))
    left = [number]

    def full(_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"cannot take the output \(No space left on device\): make"
    ):
        publish(tmp_path, contents("new"))
    assert found(tmp_path) == contents("old")
    assert len(list(tmp_path.iterdir())) == 3  # nothing hidden stays


def test_published_files_are_read_by_whom_the_user_lets(tmp_path):
    mask = os.umask(0o027)
    try:
        publish(tmp_path, contents("new"))
    finally:
        os.umask(mask)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in NAMES} == {0o640}


def test_probe_makes_the_folder_and_leaves_nothing(tmp_path):
    probe(tmp_path / "new" / "folder", NAMES)
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_probe_refuses_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="Permission denied"):
        probe(tmp_path, NAMES)


def test_probe_refuses_a_full_disk_and_a_folder_in_a_place_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "path.png").mkdir()
    with pytest.raises(ValueError, match="path.png is a folder there"):
        probe(tmp_path, NAMES)
    (tmp_path / "path.png").rmdir()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        probe(tmp_path, NAMES)
    assert list(tmp_path.iterdir()) == []
