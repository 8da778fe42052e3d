"""Profiles and the progress switch."""

import pytest

from nanoq.progress import progress
from nanoq.teach import pick, profile


def test_profiles(monkeypatch):
    monkeypatch.delenv("NANOQ_PROFILE", raising=False)
    assert (profile(), pick(ci=1, lab=2, full=3)) == ("lab", 2)
    for value, name in enumerate(("ci", "lab", "full"), start=1):
        monkeypatch.setenv("NANOQ_PROFILE", name)
        assert (profile(), pick(ci=1, lab=2, full=3)) == (name, value)
    monkeypatch.setenv("NANOQ_PROFILE", "fast")
    with pytest.raises(ValueError, match="NANOQ_PROFILE is 'fast', but must be one of ci, lab, full."):
        profile()


def test_progress_is_silent_when_switched_off(monkeypatch, capfd):
    monkeypatch.setenv("NANOQ_PROGRESS", "0")
    assert list(progress(range(3), desc="count")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")
    monkeypatch.delenv("NANOQ_PROGRESS")
    assert list(progress(range(3), desc="count")) == [0, 1, 2]
    assert "count" in capfd.readouterr().err
