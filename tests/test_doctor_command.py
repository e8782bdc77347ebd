"""`chainrule doctor`: a program under watch, its exit code, the pages of the rules."""

import json
import subprocess
import sys

import pytest

from chainrule.doctor import RULES


def doctor(*words, cwd=None):
    return subprocess.run([sys.executable, "-m", "chainrule", "doctor", *map(str, words)],
                          capture_output=True, text=True, check=False, cwd=cwd, timeout=120)


def program(tmp_path, text):
    file = tmp_path / "program.py"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_sick_program(tmp_path):
    file = program(tmp_path, RULES["CR101"].example + "\nprint('the end')\n")
    done = doctor("--json", tmp_path / "report.json", file)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("the end\nCR101 error")
    assert "program.py:" in done.stdout
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["findings"][0]["rule"] == "CR101"


def test_a_healthy_program_with_arguments(tmp_path):
    text = "import sys\nassert sys.argv[1:] == ['--epochs', '3']\nassert __name__ == '__main__'\n"
    done = doctor(program(tmp_path, text + RULES["CR101"].cured), "--epochs", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing found: 12 steps seen")


def test_a_program_that_fails_shows_its_own_traceback_alone(tmp_path):
    done = doctor(program(tmp_path, "def f():\n    return 1 / 0\nf()\n"))
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr and "return 1 / 0" in done.stderr
    assert "runpy" not in done.stderr and "chainrule/doctor" not in done.stderr


def test_silenced(tmp_path):
    assert doctor("--silence", "CR101", program(
        tmp_path, RULES["CR101"].example)).returncode == 0


@pytest.mark.parametrize(("words", "text"), [
    (["nothing.py"], "there is no file nothing.py"),
    ([], "which program?"),
    (["--rule", "CR999"], "--rules lists them"),
    (["--silence", "CR999", __file__], "no such rule"),
])
def test_mistakes(words, text):
    done = doctor(*words)
    assert done.returncode == 2 and text in done.stderr


def test_pages():
    listed = doctor("--rules").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(RULES)
    page = doctor("--rule", "cr101").stdout
    assert "optimizer.zero_grad()" in page and 'cr.doctor.silence("CR101")' in page


def test_a_program_that_trains_nothing_is_not_called_healthy(tmp_path):
    done = doctor(program(tmp_path, "print('hello')\n"))
    assert done.returncode == 2
    assert "nothing to look at" in done.stdout
