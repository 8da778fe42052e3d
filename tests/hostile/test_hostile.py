import json
import subprocess
import sys
from pathlib import Path

FOLDERS = Path(__file__).with_name("folders.py")


def test_300_hostile_folders_are_refused_in_one_sentence_or_are_the_model_that_was_saved():
    child = subprocess.run([sys.executable, FOLDERS, "--count", "300"], capture_output=True, text=True, timeout=1200)
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["grown_mb"] < 500
    assert result["outcomes"]["python refused"] > 200 and result["outcomes"]["python accepted"] < 60
    assert sum(result["outcomes"].values()) > 500
