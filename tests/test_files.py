import hashlib
import os
import stat
import tempfile
from pathlib import Path

import pytest

from nanoq import files


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


def test_a_written_file_can_be_read_by_others(tmp_path):
    with files.atomic_path(tmp_path / "a.txt") as path:
        path.write_text("new")
    assert (tmp_path / "a.txt").stat().st_mode & 0o444 == 0o444


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
