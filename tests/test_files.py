import contextlib
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nanoq import files, store


@contextlib.contextmanager
def full_disk(size=1000):
    """As if there were room for so many bytes: the system gives the same kind of errors at a limit of its own."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_appears_under_its_name_when_the_block_ends(tmp_path):
    with files.atomic_path(tmp_path / "deep" / "a.txt") as path:
        path.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with files.atomic_path(tmp_path / "a.txt") as path:
            path.write_text("ha")
            raise error

    with pytest.raises(error):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


KILLED = """
import os, signal, sys
from nanoq.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    path = tmp_path / "a[1].txt"  # a name that is a pattern to glob
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / ".a[1].txt.of-mine.tmp").write_text("no file of atomic_path")
    files.write_text(path, "new")
    assert left.exists()  # it might be another's who is writing
    for old in tmp_path.iterdir():
        os.utime(old, (time.time() - 25 * 3600,) * 2)
    files.write_text(path.with_name("b.txt"), "of another name")
    assert left.exists()
    files.write_text(path, "new")
    assert {found.name for found in tmp_path.iterdir()} == {"a[1].txt", ".a[1].txt.of-mine.tmp", "b.txt"}


def test_two_may_write_a_file_at_once_and_the_later_one_stays(tmp_path):
    with files.atomic_path(tmp_path / "a") as first:
        first.write_text("first")
        with files.atomic_path(tmp_path / "a") as second:
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "first"


def test_a_left_over_that_cannot_be_removed_stops_no_write(tmp_path, monkeypatch):
    left = tmp_path / ".a.12345678.tmp"
    left.write_text("half")
    os.utime(left, (0, 0))

    def refuse(self):
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "unlink", refuse)
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append("synced"))
    monkeypatch.setattr(os, "replace", lambda *_: done.append("replaced"))
    files.write_text(tmp_path / "a", "new")
    assert done == ["synced", "replaced"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    with files.atomic_path(tmp_path / "a.txt") as path:
        path.write_text("new")
    assert (tmp_path / "a.txt").stat().st_mode & 0o444 == 0o444


WRITERS = {
    "tensors": lambda path, count: store.save_tensors(path, {"x": torch.zeros(count)}),
    "text": lambda path, count: files.write_text(path, "ä" * count),
    "table": lambda path, count: files.write_csv(path, [{"a": "ä" * count}]),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_an_os_error_that_names_the_file_and_keeps_the_one_before(tmp_path, writer):
    WRITERS[writer](tmp_path / "a", 9)
    before = (tmp_path / "a").read_bytes()
    with full_disk(), pytest.raises(OSError, match=rf"{re.escape(str(tmp_path / 'a'))}\b"):
        WRITERS[writer](tmp_path / "a", 10_000)
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_tensors_are_written_with_what_is_said_of_them(tmp_path):
    store.save_tensors(tmp_path / "deep" / "x", {"x": torch.arange(3)}, {"said": "something"})
    assert load_file(tmp_path / "deep" / "x")["x"].tolist() == [0, 1, 2]
    assert b'"said":"something"' in (tmp_path / "deep" / "x").read_bytes()


def test_whether_files_can_be_written_is_known_before(tmp_path):
    (tmp_path / "taken").write_text("old")
    files.check_folder(tmp_path)
    files.check_folder(tmp_path / "to" / "come")
    files.check_file(tmp_path / "taken")
    for wrong in (tmp_path / "taken", tmp_path / "taken" / "deep"):
        with pytest.raises(ValueError, match="taken is a file: give a folder"):
            files.check_folder(wrong)
    with pytest.raises(ValueError, match="is a folder: give a file"):
        files.check_file(tmp_path)
    with pytest.raises(ValueError, match="is a device or a pipe, which would be replaced"):
        files.check_file(Path(os.devnull))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_cannot_be_written_to_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # for root every folder is its own
    with pytest.raises(ValueError, match=f"no file can be written to {tmp_path}: give another folder"):
        files.check_file(tmp_path / "a.csv")


def test_the_data_folder_is_the_repositorys():
    assert files.data_dir() == Path(__file__).parents[1] / "data"


def test_the_data_folder_of_a_wheel_lies_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "nanoq" / "data").mkdir(parents=True)
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "nanoq")
    assert files.data_dir() == tmp_path / "nanoq" / "data"


def test_the_cache_is_where_nanoq_cache_says(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOQ_CACHE", str(tmp_path / "mine"))
    assert files.cache_dir() == tmp_path / "mine" and (tmp_path / "mine").is_dir()


def test_the_cache_follows_the_desktops_convention(tmp_path, monkeypatch):
    monkeypatch.delenv("NANOQ_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "nanoq"


@pytest.mark.parametrize("empty", [None, ""])
def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch, empty):
    monkeypatch.delenv("NANOQ_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if empty is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", empty)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert files.cache_dir() == tmp_path / ".cache" / "nanoq"


# ---- no home folder, or one that cannot be written to ----


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Where the user's own temporary folder will be; neither it nor a cache is there."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("NANOQ_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    files.private_dir.cache_clear()
    yield tmp_path / "temporary" / f"nanoq-{os.getuid()}"
    files.private_dir.cache_clear()


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_the_cache_is_a_temporary_folder_of_ones_own(own, monkeypatch):
    monkeypatch.setattr(Path, "home", no_home)
    assert files.cache_dir() == own and files.cache_dir() == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


@pytest.mark.parametrize("variable", ["NANOQ_CACHE", "XDG_CACHE_HOME"])
def test_where_the_cache_cannot_be_made_it_is_a_temporary_folder(own, tmp_path, monkeypatch, variable):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "cache"))
    assert files.cache_dir() == own


def test_a_cache_that_cannot_be_written_to_counts_only_where_it_was_asked_for(own, tmp_path, monkeypatch):
    (tmp_path / "nanoq").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == own
    monkeypatch.setenv("NANOQ_CACHE", str(tmp_path / "nanoq"))
    assert files.cache_dir() == tmp_path / "nanoq"


def somebody_elses(own, monkeypatch):
    own.mkdir(mode=0o700)
    about = list(own.lstat())
    about[stat.ST_UID] += 1
    monkeypatch.setattr(Path, "lstat", lambda _: os.stat_result(about))


def a_link(own, monkeypatch):
    (own.parent / "elsewhere").mkdir(mode=0o700)
    own.symlink_to(own.parent / "elsewhere")


def open_to_others(own, monkeypatch):
    own.mkdir()
    own.chmod(0o770)


def a_file(own, monkeypatch):
    own.touch()


@pytest.mark.parametrize("trap", [somebody_elses, a_link, open_to_others, a_file])
def test_a_folder_in_which_others_can_leave_code_is_not_used(own, monkeypatch, trap):
    trap(own, monkeypatch)
    found = files.private_dir()
    assert found != own and found.parent == own.parent and found == files.private_dir()
    monkeypatch.undo()
    assert stat.S_IMODE(found.stat().st_mode) == 0o700 and not found.is_symlink()


def test_where_nothing_can_be_written_the_error_says_what_to_do(own, monkeypatch):
    def none_found():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', …]")

    monkeypatch.setattr(tempfile, "gettempdir", none_found)
    with pytest.raises(FileNotFoundError, match="let TMPDIR name one"):
        files.private_dir()


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_table_is_written_as_csv_with_a_header(tmp_path):
    files.write_csv(tmp_path / "deep" / "a.csv", [{"name": "naïve, row", "bits": 4}, {"name": "x", "bits": 0.5}])
    assert (tmp_path / "deep" / "a.csv").read_bytes() == 'name,bits\n"naïve, row",4\nx,0.5\n'.encode()


@pytest.mark.parametrize("home", ["{tmp}/file/home", "{tmp}"])
def test_matplotlib_gets_a_folder_where_there_is_no_home(tmp_path, home):
    (tmp_path / "file").touch()  # root could write anywhere else
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    environment["HOME"] = home.format(tmp=tmp_path)
    code = "import os, nanoq.teach; print(os.environ.get('MPLCONFIGDIR', 'its own'))"
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert child.stderr == ""
    assert child.stdout.strip() == "its own" if home == "{tmp}" else child.stdout.strip().endswith("matplotlib")
