"""Exercises check themselves: answers by finite differences, hints by evaluating what they say."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.main import main
from chainrule.core.errors import SettingError
from chainrule.explain.practice import KINDS, Exercise, exercise
from chainrule.explain.practice.kinds import nice_points, output_points

LEVELS = (1, 2, 3)
SEEDS = 42                                   # 8 kinds, 3 levels: 1,008 exercises
NUMERIC = ("local", "step", "layers", "batch", "paths")


def loss_at(one: Exercise, values: dict[str, Any]) -> float:
    """The loss of the exercise's program, run by itself."""
    assert one.problem is not None
    scope: dict[str, Any] = {"cr": cr}
    scope |= {name: cr.tensor(value, dtype=cr.float64) for name, value in values.items()}
    exec(one.problem.body, scope)
    return float(scope[one.problem.loss])


def difference(one: Exercise, name: str) -> Any:
    """The gradient by central differences."""
    assert one.problem is not None
    start = np.asarray(one.problem.values[name], float)
    result = np.zeros(start.shape)
    for place in np.ndindex(start.shape):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * 1e-5
            ends.append(loss_at(one, {**one.problem.values, name: moved.tolist()}))
        result[place] = (ends[0] - ends[1]) / 2e-5
    return result


def verify_answer(one: Exercise) -> None:
    """Every gradient that is asked, and what follows from it."""
    assert one.problem is not None
    right = {}
    for part in one.parts:
        name = part.name.rpartition("∂")[2]
        if part.name.startswith("∂") and one.kind != "depth":
            right[name] = difference(one, name)
            np.testing.assert_allclose(part.value, right[name], rtol=1e-4, atol=1e-6)
        elif part.name == "L":
            np.testing.assert_allclose(part.value, loss_at(one, one.problem.values))
        elif part.name.startswith("the new "):
            name = part.name.removeprefix("the new ")
            rate = float(re.search(r"with rate ([\d.]+)\.", one.question)[1])
            start = np.asarray(one.problem.values[name])
            np.testing.assert_allclose(part.value, start - rate * right[name], rtol=1e-4,
                                       atol=1e-8)


def verify_wrong(one: Exercise) -> None:
    """No wrong answer is right, and each is named as a mistake."""
    for i, part in enumerate(one.parts):
        for wrong in part.wrong:
            given = [p.value for p in one.parts]
            given[i] = wrong.value
            found = one.check(given if len(given) > 1 else given[0])
            assert not found.right
            assert found.mistake in {w.kind for w in part.wrong}
            assert wrong.sentence.endswith(".")


NAMES = {"σ": "sigmoid", "√": "sqrt"}


def value_of(text: str) -> Any:
    """What a line with numbers amounts to."""
    for old, new in (("−", "-"), ("·", "*"), ("⊙", "*"), ("²", "**2"), ("³", "**3"),
                     ("⁻¹", "**-1"), (" / ", "/")):
        text = text.replace(old, new)
    text = re.sub(r"\[[-\d., \[\]]*\]", lambda m: f"np.array({m[0]})", text)
    text = re.sub(r"Σ (.*)", r"np.sum(\1)", text)
    text = re.sub(r"√([\d.]+)", r"sqrt(\1)", text)
    scope = {"np": np, "exp": np.exp, "sqrt": np.sqrt, "log": np.log, "sin": np.sin,
             "cos": np.cos, "sign": np.sign, "sinh": np.sinh, "cosh": np.cosh}
    return eval(text.replace("√", "sqrt"), scope)


def verify_hints(one: Exercise) -> bool:
    """The third hint leads to the answer; False where it is written in matrices."""
    last = one.hints[2].split("\n")
    rows = [line.partition(" = ") for line in last if " = " in line]
    found = False
    for part in one.parts:
        lines = [after for name, _, after in rows if name == part.name]
        if not lines or not part.name.startswith("∂") or any(
                c in lines[0] for c in "ᵀ@") or "where" in lines[0]:
            continue
        np.testing.assert_allclose(value_of(lines[0].split(" = ")[0]), part.value, rtol=1e-4)
        found = True
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", NUMERIC)
def test_a_thousand_exercises_verify_themselves(kind: str) -> None:
    evaluated = 0
    for level in LEVELS:
        for seed in range(SEEDS):
            one = exercise(kind, level, seed)
            assert one.check(one.answer).right, one
            verify_answer(one)
            verify_wrong(one)
            assert len(one.hints) == 3 and all(one.hints)
            evaluated += verify_hints(one)
            assert sum(len(part.wrong) for part in one.parts) >= 2, one
            for part in one.parts:
                assert f"{part.name}" in one.question or part.name.startswith("∂")
    assert evaluated >= SEEDS


def gradients_of(one: Exercise) -> dict[str, Any]:
    """Value and .grad of every variable of the program, by backward()."""
    assert one.problem is not None
    scope: dict[str, Any] = {"cr": cr}
    kept = []
    for name, value in one.problem.values.items():
        scope[name] = cr.tensor(value, dtype=cr.float64, requires_grad=True)
    for line in one.problem.body.split("\n"):
        exec(line, scope)
        name = line.split(" = ")[0]
        scope[name].retain_grad()
        kept.append(name)
    scope[one.problem.loss].backward()
    names = [*one.problem.values, *kept]
    found = {f"∂L/∂{name}": float(scope[name].grad) for name in names
             if scope[name].grad is not None}
    return found | {name: float(scope[name].detach()) for name in names}


def test_formulas_match_the_gradients_they_are_given_to() -> None:
    for level in LEVELS:
        for seed in range(SEEDS):
            one = exercise("match", level, seed)
            known = gradients_of(one)
            wanted = re.findall(r"\d\.  (∂L/∂\w+) = \?", one.question)
            offered = dict(re.findall(r"\((\w)\)  (.*)", one.question))
            assert len(wanted) == len(offered) == len(one.answer) >= 3
            for name, letter in zip(wanted, one.answer, strict=True):
                text = offered[letter].replace("²", "**2")
                text = re.sub(r"∂L/∂\w+|\b[a-z]\b", lambda m, known=known: f"({known[m[0]]!r})",
                              re.sub(r"\[(\w) > 0\]", r"(\1 > 0)", text))
                np.testing.assert_allclose(value_of(text), known[name], rtol=1e-9)
            assert one.check(" ".join(one.answer.upper())).right
            turned = one.answer[1:] + one.answer[0]
            assert one.check(turned).mistake == "operand"
            assert not one.check("xyz").right


def test_an_order_is_right_if_nothing_comes_too_early() -> None:
    for level in LEVELS:
        for seed in range(SEEDS):
            one = exercise("order", level, seed)
            assert one.check(one.answer).right
            early = one.check(one.answer[::-1])
            assert not early.right and early.mistake == "order" and "too early" in early.text
            assert "once" in one.check(one.answer[:-1]).text
    assert one.hints[2].endswith(".")


def test_depth_by_the_engine() -> None:
    for level in LEVELS:
        for seed in range(SEEDS):
            one = exercise("depth", level, seed)
            assert one.problem is not None
            line = re.search(r"    (h = .*)", one.problem.body)[1]

            def gradient(layers: int, one: Exercise = one, line: str = line) -> float:
                scope: dict[str, Any] = {"cr": cr, "w": one.problem.values["w"]}
                scope["x"] = scope["h"] = cr.tensor(one.problem.values["x"], dtype=cr.float64,
                                                    requires_grad=True)
                for _ in range(layers):
                    exec(line, scope)
                scope["h"].backward()
                return float(scope["x"].grad)

            if level == 3:
                n = int(one.answer)
                small = "below" in one.question
                assert (gradient(n) < 1e-3) == small if small else gradient(n) > 1e3
                assert (gradient(n - 1) >= 1e-3) if small else gradient(n - 1) <= 1e3
            else:
                n = int(one.question.split()[0])
                assert gradient(n) == pytest.approx(
                    one.answer if level == 2 else gradient(1) ** n)
            if level == 1:
                assert one.answer == ("vanishes" if gradient(n) < 1 else "explodes")
            assert one.check(one.answer).right
            verify_wrong(one) if level > 1 else None


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_seed_is_the_same_exercise(kind: str) -> None:
    first, again = exercise(kind, 2, 5), exercise(kind, 2, 5)
    assert (first.question, first.hints) == (again.question, again.hints)
    assert len({exercise(kind, 1, seed).question for seed in range(12)}) > 4
    assert str(first) == first.question
    assert "gradients" in first.solution()
    assert max(map(len, first.solution(60).split("\n"))) <= 60


def test_the_rows_come_from_the_table() -> None:
    assert len({name for name, _ in nice_points()}) >= 6
    assert len({name for name, *_ in output_points()}) >= 3


def test_the_solution_belongs_to_its_exercise() -> None:
    one = exercise("paths", 1, 1)
    exercise("layers", 3, 2).solution()
    body = one.problem.body.split("\n")[0]
    assert body in one.solution()


@pytest.mark.parametrize(("given", "right"), [
    ("-6", True), ("−6", True), ("-6.0", True), ("-12/2", True), ("∂L/∂w = -6", True),
    ("[-6]", True), (-6, True), (np.array(-6.0), True), ([-6.0], True), ("-6,0", True),
    ("6", False), ("six", False), ("", False), ("1 2", False), (None, False), ("-6 ÷ 1", False),
])
def test_answers_as_people_write_them(given: Any, right: bool) -> None:
    one = next(e for e in (exercise("local", 2, seed) for seed in range(500))
               if float(e.answer) == -6.0)
    assert one.check(given).right is right


def test_a_word_as_an_answer() -> None:
    one = exercise("depth", 1, 1)
    assert one.check(one.answer.upper() + ".").right
    assert one.check("vanish").right != one.check("explode").right
    assert "one of these words" in one.check("hm").text


def test_mistakes_of_the_call() -> None:
    with pytest.raises(SettingError, match="kinds are local, step"):
        exercise("nothing")
    with pytest.raises(SettingError, match="levels are 1, 2, 3"):
        exercise("paths", 7)
    assert exercise().kind in KINDS


# ---------------------------------------------------------------- the command


def practise(text: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main(["practice", *words])


def test_a_session(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = exercise("paths", 1, 7), exercise("paths", 1, 8)
    text = f"{one.answer}\n\n?\n1e9\n?\n?\n?\n{two.answer}\ns\nq\n"
    assert practise(text, "paths", "--seed", "7", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "hint 1 of 3" in printed and "hint 3 of 3" in printed
    assert "no more hints" in printed
    assert "Not right" in printed
    assert "2 of 3 right, 1 of them at once and without a hint." in printed
    assert "gradients" in printed                      # the solution of the one that was skipped
    assert "(paths --level 1 --seed 8)" in printed


def test_the_end_of_the_input_ends_the_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert practise("", monkeypatch=monkeypatch) == 0
    assert "No exercise was finished." in capsys.readouterr().out
    assert practise("s\n" * 8, "--count", "8", "--level", "3", "--seed", "1",
                    monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "0 of 8 right." in printed
    for name, (_, about) in KINDS.items():
        assert f"{about}   ({name} --level 3" in printed


@pytest.mark.parametrize("level", LEVELS)
def test_narrow_terminals_and_plain_characters(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    words = ["--level", str(level), "--seed", "2", "--count", "16"]
    assert practise("?\n?\n?\n0.123\ns\n" * 16, *words, monkeypatch=monkeypatch) == 0
    out.flush()
    printed = raw.getvalue().decode("ascii")
    questions = re.sub(r"(?s)given\n.*?\n\n\d+\.", "", printed)      # explain's own part is wider
    assert max(map(len, questions.split("\n"))) <= 60
    assert not re.search(r"\w\?\w|\?\?", printed)


@pytest.mark.parametrize(("words", "message"), [
    (["nothing"], "kinds are"), (["--level", "9"], "levels are"), (["--count", "-1"], "--count"),
    (["--seed", "-3"], "--seed"),
])
def test_mistakes_of_the_command(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert practise("", *words, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err
