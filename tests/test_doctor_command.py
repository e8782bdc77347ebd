"""`chainrule doctor`: a program under watch, its exit code, the pages of the rules."""

import json
import os
import subprocess
import sys

import pytest

from chainrule.doctor import RULES


def doctor(*words, cwd=None, encoding="utf-8"):
    return subprocess.run([sys.executable, "-m", "chainrule", "doctor", *map(str, words)],
                          capture_output=True, text=True, check=False, cwd=cwd, timeout=120,
                          encoding=encoding, env={**os.environ, "PYTHONIOENCODING": encoding})


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
    assert "stopped by ZeroDivisionError at program.py:2: division by zero" in done.stdout
    assert "  program.py:2  return 1 / 0\n" in done.stdout


def test_a_program_that_fails_without_a_finding_is_not_called_clean(tmp_path):
    file = program(tmp_path, RULES["CR101"].cured + "\nmodel(cr.randn(2, 99))\n")
    done = doctor("--json", tmp_path / "report.json", file)
    line = len(file.read_text("utf-8").splitlines())
    assert done.returncode == 2
    assert done.stdout.startswith(f"stopped by ShapeError at program.py:{line}: ")
    assert "nothing found" not in done.stdout and "12 steps seen" in done.stdout
    error = json.loads((tmp_path / "report.json").read_text("utf-8"))["error"]
    assert (error["type"], error["line"]) == ("ShapeError", line)


def test_a_program_that_cannot_be_read_is_told_with_its_line(tmp_path):
    done = doctor(program(tmp_path, "print(1)\nfor i in range(3)\n    pass\n"))
    assert done.returncode == 2
    assert done.stdout.startswith("stopped by SyntaxError at program.py:2: expected ':'\n"
                                  "  program.py:2  for i in range(3)\n")


@pytest.mark.parametrize(("code", "told", "message"), [
    ("7", "the program ended with exit code 7", ""),
    ("'bad things'", "the program ended with exit code 1: bad things", "bad things\n"),
    ("0", "", ""),
])
def test_how_a_program_ended(tmp_path, code, told, message):
    done = doctor(program(tmp_path, RULES["CR101"].cured + f"\nraise SystemExit({code})\n"))
    assert told in done.stdout and ("exit code" in done.stdout) is bool(told)
    assert done.stderr == message and done.returncode == (2 if told else 0)


@pytest.mark.parametrize("option", ["--json", "--html", "--sarif"])
def test_a_report_that_cannot_be_written_is_refused_before_the_program_runs(tmp_path, option):
    file = program(tmp_path, "print('it runs')\n")
    done = doctor(option, tmp_path / "nowhere" / "report", file)
    assert done.returncode == 2 and "it runs" not in done.stdout
    assert f"{option} " in done.stderr and "there is no folder" in done.stderr
    assert "is a folder" in doctor(option, tmp_path, file).stderr


def test_a_program_may_leave_the_folder_and_break_what_the_report_is_written_to(tmp_path):
    (tmp_path / "out").mkdir()
    text = RULES["CR101"].example + """
import os, shutil, sys
os.chdir("/")
shutil.rmtree({out!r})
sys.stdout = open(os.devnull, "w")
"""
    program(tmp_path, text.format(out=str(tmp_path / "out")))
    done = doctor("--json", "out/a.json", "--html", "b.html", "program.py", cwd=tmp_path)
    assert done.stdout.startswith("CR101 error") and done.returncode == 1
    assert "a.json could not be written" in done.stderr and "Traceback" not in done.stderr
    assert "CR101" in (tmp_path / "b.html").read_text("utf-8")
    assert "  program.py:" in done.stdout and "loss.backward()" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_the_characters(tmp_path, encoding):
    done = doctor(program(tmp_path, RULES["CR403"].example), encoding=encoding)
    assert done.returncode == 1 and "UnicodeEncodeError" not in done.stderr
    assert "CR403 error" in done.stdout and " - " in done.stdout and "\\u" not in done.stdout


def test_a_module_with_arguments(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "package" / "train.py").write_text(
        "import sys\nfrom . import __name__ as above\nassert __name__ == '__main__'\n"
        "assert above == 'package' and sys.argv[1:] == ['--epochs', '3']\n"
        "assert sys.argv[0] == __file__\n" + RULES["CR101"].cured, "utf-8")
    done = doctor("--html", "page.html", "-m", "package.train", "--epochs", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing found: 12 steps seen" in done.stdout
    assert "-m package.train --epochs 3" in (tmp_path / "page.html").read_text("utf-8")
    done = doctor("-m", "package.nothing", cwd=tmp_path)
    assert done.returncode == 2 and "No module named package.nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_library(tmp_path):
    (tmp_path / "torch.py").write_text("", "utf-8")
    done = doctor(program(tmp_path, "import torch\n"))
    assert done.returncode == 2 and "nothing to look at" in done.stdout
    assert 'in place of "import torch"' in " ".join(done.stdout.split())
    done = doctor(program(tmp_path, "import torch\n" + RULES["CR101"].cured))
    assert "in place of" not in done.stdout


def test_silenced(tmp_path):
    done = doctor("--silence", "cr101", program(tmp_path, RULES["CR101"].example))
    assert done.returncode == 0 and done.stdout.endswith("\n\nsilenced: CR101\n")


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
