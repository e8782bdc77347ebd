"""`check`: a backward pass written by hand, marked step by step against the chain rule.

The truth is the recorded graph of f, run backwards in float64 by the rules of the table. What is
wrong is judged from the user's own numbers: a step that goes on rightly from a wrong one is right.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import ChainruleError, DtypeError, SettingError
from chainrule.core.node import Node, user_frame
from chainrule.explain.derive import BackwardStep, derive
from chainrule.explain.naming import Names, scope_of
from chainrule.tensor import Tensor

from .crash import mistake_in_crash
from .describe import described, rule_text
from .recognise import Guess, Observation, equal, recognised
from .review import FOLLOWS, RIGHT, WRONG, Mark, Mistake, Review
from .slips import FAILURES
from .tape import Tape, is_float, record

TRIALS = 4
NOISE = 100            # rounding errors of a derivation, over those of three random ones
GROSS = 1e-2
RELATIVE = {2: 3e-2, 4: 3e-4, 8: 1e-7}        # of the largest element, by the size of the dtype
PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉.", "0123456789_")
SPELLINGS = ("d{}", "d_{}", "∂{}", "grad_{}", "{}_grad", "{}.grad", "g_{}", "delta_{}", "δ{}",
             "{L}_d{}", "d{L}_d{}", "d{L}/d{}", "∂{L}/∂{}", "dL_d{}", "dL/d{}", "∂L/∂{}")


def check(my_backward: Any, f: Callable[..., Any], *inputs: Any,
          names: Mapping[str, Any] | None = None, model: Any = None, upstream: Any = None,
          tolerance: float | None = None) -> Review:
    """Marks a backward pass written by hand, step by step, and names its mistakes.

    my_backward  a function of the inputs (and of `upstream`, last, if that is given) that returns
                 its gradients: a dict such as {"dz2": ..., "dW2": ...}, named after the variables
                 of f, with as many intermediate steps as you like; or a tuple in the order of the
                 inputs, None for those left out; or one array if there is one input. It gets the
                 inputs as you gave them, NumPy or tensors. The dict or tuple itself will do, for
                 numbers worked out on paper.
    f            the forward pass: a function of tensors that returns the loss
    inputs       tensors, arrays or numbers, for both functions
    names        {name: tensor} for tensors that f takes from elsewhere
    model        the module whose parameters are meant by name
    upstream     the gradient that arrives at the result of f, if that is not a loss
    tolerance    relative to the largest element of each gradient; by default from the dtypes

    A step is `right`, `wrong`, or it `follows` from an earlier mistake. A mistake is named only if
    the same slip explains your numbers at these inputs and at others of the same shapes.

    >>> def f(w, x):
    ...     z = w * x
    ...     a = cr.sigmoid(z)
    ...     return (a - 1) ** 2
    >>> def backward(w, x):
    ...     a = 1 / (1 + np.exp(-w * x))
    ...     da = 2 * (a - 1)
    ...     dz = da                       # the slope a·(1 − a) is missing
    ...     return {"da": da, "dz": dz, "dw": dz * x}
    >>> review = cr.explain.check(backward, f, 0.5, 2.0)
    >>> [(step.name, step.mark) for step in review.steps]
    [('∂L/∂a', 'right'), ('∂L/∂z', 'wrong'), ('∂L/∂w', 'follows')]
    >>> review.mistakes[0].kind
    'slope'

    Raises SettingError for names that f does not have, GradientError if f gives no loss.
    """
    scope = scope_of(user_frame(inspect.currentframe()))
    task = _Task(my_backward, f, inputs, names, model, upstream, tolerance, scope)
    return task.review()


class _Task:
    """One call of check: how to run both passes on some inputs, and what came of it."""

    def __init__(self, mine: Any, f: Callable[..., Any], inputs: tuple[Any, ...],
                 names: Mapping[str, Any] | None, model: Any, upstream: Any,
                 tolerance: float | None, scope: Mapping[str, Any]) -> None:
        self.mine, self.f, self.inputs = mine, f, inputs
        self.model, self.tolerance = model, tolerance
        self.upstream = None if upstream is None else array_of(upstream)
        first = next((x for x in inputs if isinstance(x, Tensor)), None)
        self.given_upstream = upstream if first is None or isinstance(upstream, Tensor) or (
            upstream is None) else Tensor(self.upstream, dtype=first.dtype)
        self.scope, self.extra = {**scope, **closure_of(f)}, dict(names or {})
        self.arrays = tuple(map(array_of, inputs))
        self.keys = input_names(f, len(inputs))
        self.exact = True
        self.unmarked: list[str] = []
        self.tape = self.forward(self.arrays)
        self.names = self.named(self.tape)
        self.loss = self.names.get(self.tape.root) or "L"

    # ------------------------------------------------------------ both passes

    def forward(self, arrays: tuple[Any, ...]) -> Tape:
        """The tape of f, in float64 unless f itself insists on another dtype."""
        if self.exact:
            try:
                wide = tuple(x.astype("f8") if is_float(x) else x for x in arrays)
                return record(self.f, wide, self.upstream)
            except DtypeError:
                self.exact = False
        return record(self.f, arrays, self.upstream)

    def named(self, tape: Tape) -> dict[Node, str]:
        """What the nodes are called: parameters of f, variables of f, names from outside."""
        found = Names(self.given_names(tape), self.model, self.scope)
        found.settle(tape.order[::-1])
        return found.of_node

    def given_names(self, tape: Tape) -> dict[str, Any]:
        """The inputs by the parameters of f; a loss that is made here is L."""
        made = {} if self.upstream is None else {"L": tape.loss}
        inputs = {key: t for key, t in zip(self.keys, tape.tensors, strict=True)
                  if isinstance(t, Tensor)}
        return {**inputs, **self.extra, **made}

    def backward(self, inputs: Sequence[Any]) -> Any:
        if not callable(self.mine):
            return self.mine
        given = [copy_of(x) for x in inputs]         # the user may write into them
        if self.upstream is not None:
            given.append(self.given_upstream)
        return self.mine(*given)

    def collected(self, answer: Any, tape: Tape) -> dict[int, Any]:
        """The user's gradients by the places of their nodes on the tape."""
        if isinstance(answer, Mapping):
            return self.by_name({str(k): v for k, v in answer.items() if v is not None})
        nodes = tape.inputs
        values = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        if len(values) != len(nodes):
            floats = [node for node in nodes if node is not None]
            if len(values) != len(floats):
                raise SettingError(
                    f"check(): my_backward returned {len(values)} gradient"
                    f"{'s' if len(values) != 1 else ''} for {len(nodes)} input"
                    f"{'s' if len(nodes) != 1 else ''} ({', '.join(self.keys)}). Return one "
                    "for each, None for those you leave out, or a dict: "
                    f"{{\"d{self.keys[0]}\": ...}}")
            nodes = tuple(floats)
        return {tape.place[node]: numbers_of(value, "result") for node, value
                in zip(nodes, values, strict=True) if value is not None and node in tape.place}

    def by_name(self, answer: dict[str, Any]) -> dict[int, Any]:
        """A dict of gradients. Where some are called dz, a plain z is a value of the forward pass,
        as in `return locals()`; what f has no step for is told and not marked."""
        plain = spelled(("{}",), self.names, self.loss, self.tape)
        known = {**{key: place for key, place in plain.items()       # net.0.weight
                    if "." in self.names.get(self.tape.order[place], "")},
                 **spelled(SPELLINGS, self.names, self.loss, self.tape)}
        if not any(key.translate(PLAIN) in known for key in answer):
            known = {**plain, **known}
            self.refuse_unknown(answer, known)
        else:
            self.unmarked = [key for key in answer if key.translate(PLAIN) not in {
                *known, *plain, *self.keys}]
        return {known[key.translate(PLAIN)]: numbers_of(value, key)
                for key, value in answer.items() if key.translate(PLAIN) in known}

    def refuse_unknown(self, answer: dict[str, Any], by_name: dict[str, int]) -> None:
        for key in answer:
            if key.translate(PLAIN) in by_name:
                continue
            near = difflib.get_close_matches(key.translate(PLAIN), by_name, 1, 0.6)
            listed = ", ".join(f"d{name}" for name in
                              dict.fromkeys(self.names[n] for n in self.tape.order[::-1]
                                            if n in self.names))
            raise SettingError(
                f"check(): there is no step {key!r} in f."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + f" The gradients it has names for: {listed}. A step gets the name of the "
                "variable that f stores it in.")

    # ------------------------------------------------------------ marking

    def review(self) -> Review:
        try:
            answer = self.backward(self.inputs)
        except FAILURES as error:
            mistake = mistake_in_crash(error, self.tape, self.names)
            if mistake is None:
                raise
            return Review((), (mistake,))
        mine = self.collected(answer, self.tape)
        if not mine:
            raise SettingError("check(): my_backward returned no gradient, so there is nothing to "
                               f'mark. Return a dict of them: {{"d{self.keys[0]}": ...}}')
        width = min(map(size_of, (*self.arrays, *mine.values())))
        relative = self.tolerance or RELATIVE[width]
        true = self.tape.true
        mine, remarks = shaped(mine, self.tape)
        seen = Observation(self.tape, mine, self.noise(float(np.finfo(f"f{width}").eps)), relative)
        right = {p for p in mine if seen.same(p, true.expected[self.tape.order[p]])}
        follows = {p for p in mine if p not in right and seen.same(p, seen.expected(p))}
        wrong = set(mine) - right - follows
        if not wrong:                        # nothing to follow from
            right, follows = right | follows, set()
        trials = list(self.trials(seen)) if wrong or callable(self.mine) else []
        mistakes = self.mistakes(seen, trials, wrong)
        marks = []
        for place in sorted(mine):
            mark = RIGHT if place in right else FOLLOWS if place in follows else WRONG
            marks.append(Mark(self.gradient_name(place), mark, mine[place],
                              true.expected[self.tape.order[place]], mistakes.get(place),
                              remarks.get(place, "")))
        found = tuple({id(m): m for m in (mistakes[p] for p in sorted(mistakes))}.values())
        told = [] if found else self.elsewhere(trials)
        if self.unmarked:
            listed = ", ".join(self.unmarked)
            told.append(f"Not marked, since f has no step of that name: {listed}.")
        return Review(tuple(marks), found, tuple(told))

    def mistakes(self, seen: Observation, trials: list[Observation],
                 wrong: set[int]) -> dict[int, Mistake]:
        """The mistake behind each wrong gradient; one may stand behind several."""
        found: dict[int, Mistake] = {}
        steps = self.derivation() if wrong else ()
        left = set(wrong)
        for given in (True, False):          # from the user's own gradients, then from the true
            if not left:
                break
            if not given:
                seen, trials = without_given(seen), [without_given(t) for t in trials]
            for best, equals in recognised(seen, trials, left):
                mistake = self.told(seen, best, equals, steps)
                found.update(dict.fromkeys(best.shows, mistake))
            left -= set(found)
        for place in left:
            found[place] = self.unknown(seen, place, steps)
        return found

    def told(self, seen: Observation, best: Guess, equals: tuple[Guess, ...],
             steps: tuple[BackwardStep, ...]) -> Mistake:
        shows = tuple(self.gradient_name(p) for p in sorted(best.shows))
        return described(seen, best, equals, self.names, shows, steps, self.loss)

    def unknown(self, seen: Observation, place: int,
                steps: tuple[BackwardStep, ...]) -> Mistake:
        node = seen.tape.order[place]
        name, yours = self.gradient_name(place), np.shape(seen.mine[place])
        formula = rule_text([s for s in steps if s.of == self.names.get(node) and not s.terms
                             and s.number])
        if yours != node.shape:
            return Mistake("shape", name, (
                f"Yours has the shape {shape_text(yours)}, but a gradient has the shape of what "
                f"it belongs to, here {shape_text(node.shape)}."), formula, "", (name,))
        return Mistake("unknown", name, "This is wrong, but no single slip that is known here "
                       "gives these numbers.", formula, "", (name,))

    def derivation(self) -> tuple[BackwardStep, ...]:
        """The true steps, for their formulas."""
        try:
            return derive(self.tape.loss, self.scope, names=self.given_names(self.tape),
                          model=self.model).backward
        except ChainruleError:               # the numbers are marked all the same
            return ()

    def gradient_name(self, place: int) -> str:
        return f"∂{self.loss}/∂{self.names.get(self.tape.order[place], self.loss)}"

    # ------------------------------------------------------------ other inputs

    def noise(self, unit: float) -> dict[int, float]:
        """How much each gradient moves when inputs and terms are rounded to `unit`, relatively."""
        rng = np.random.default_rng(0)
        found: dict[int, list[float]] = {}

        def rounded(x: Any) -> Any:
            return (x * (1 + unit * rng.uniform(-1, 1, x.shape))).astype(x.dtype)

        for _ in range(3):
            moved = tuple(rounded(x.astype("f8") if self.exact else x) if is_float(x) else x
                          for x in self.arrays)
            try:
                tape = self.forward(moved)
            except FAILURES:
                continue
            if alike(tape, self.tape):
                for node, value in tape.backward(rounding=rounded).expected.items():
                    place = tape.place[node]
                    gap = np.abs(value - self.tape.true.expected[self.tape.order[place]])
                    found.setdefault(place, []).append(float(np.max(gap, initial=0.0)))
        return {place: NOISE * float(np.median(gaps)) for place, gaps in found.items()
                if np.all(np.isfinite(gaps))}

    def trials(self, seen: Observation) -> Iterator[Observation]:
        """Both passes on other numbers, in the inputs whose gradients were given."""
        if not callable(self.mine):
            return
        rng = np.random.default_rng(1)
        given = {self.tape.order[p] for p in seen.mine}
        chosen = [is_float(x) and (not given & set(self.tape.inputs) or node in given)
                  for x, node in zip(self.arrays, self.tape.inputs, strict=True)]
        for _ in range(TRIALS):
            arrays = tuple(other_numbers(x, rng) if free else x
                           for x, free in zip(self.arrays, chosen, strict=True))
            try:
                tape = self.forward(arrays)
                if not alike(tape, self.tape):
                    continue
                answer = self.backward([like(old, new) if free else old for old, new, free
                                        in zip(self.inputs, arrays, chosen, strict=True)])
                mine, _ = shaped(self.collected(answer, tape), tape)
            except FAILURES:
                continue
            if set(mine) != set(seen.mine):
                continue
            trial = Observation(tape, mine, {}, seen.relative)
            if all(np.all(np.isfinite(mine[p])) and np.all(np.isfinite(trial.expected(p)))
                   for p in mine):
                yield trial

    def elsewhere(self, trials: list[Observation]) -> list[str]:
        """What is right at these inputs and wrong at all others that were tried."""
        wrong = [{p for p in t.mine if not equal(
            t.mine[p], t.expected(p), GROSS, GROSS * t.largest_term(p))} for t in trials]
        always = set.intersection(*wrong) if wrong else set()
        if not always:
            return []
        listed = ", ".join(self.gradient_name(p) for p in sorted(always))
        return [(f"Right at these inputs, but not in general: with other numbers of the same "
                f"shapes {listed} came out wrong, {len(trials)} times of {len(trials)}.")]


def without_given(seen: Observation) -> Observation:
    return Observation(seen.tape, seen.mine, seen.noise, seen.relative, given=False)


# ---------------------------------------------------------------- inputs and answers


def array_of(x: Any) -> Any:
    """Tensors, arrays and floats as arrays; other things as they are."""
    if isinstance(x, Tensor):
        return x.detach().numpy()
    if isinstance(x, (float, list)):
        array = np.asarray(x)
        return array if array.dtype.kind in "fiub" else x
    return np.asarray(x) if isinstance(x, np.generic) else x


def copy_of(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().clone()
    return x.copy() if isinstance(x, (np.ndarray, list)) else x


def numbers_of(value: Any, key: Any) -> Any:
    found = np.asarray(array_of(value))
    if found.dtype.kind not in "fiub":
        raise SettingError(f"check(): {key!r} is {value!r:.60}; a gradient is an array of numbers")
    return found


def other_numbers(x: Any, rng: Any) -> Any:
    """Numbers of the same signs and sizes, so that they stay where f is defined."""
    fresh = np.where(x == 0, rng.normal(0.0, 0.3, x.shape), x * rng.uniform(0.55, 1.1, x.shape))
    return fresh.astype(x.dtype)


def like(old: Any, new: Any) -> Any:
    """An array as what the user gave: a tensor, a number, a list."""
    if isinstance(old, Tensor):
        return Tensor(new, dtype=old.dtype)
    if isinstance(old, float):
        return float(new)
    return new.tolist() if isinstance(old, list) else new


def size_of(x: Any) -> int:
    """The bytes of its floats; whole numbers are exact."""
    return x.dtype.itemsize if is_float(x) and x.dtype.itemsize in RELATIVE else 8


def shaped(mine: dict[int, Any], tape: Tape) -> tuple[dict[int, Any], dict[int, str]]:
    """Gradients without axes of size 1 too many or too few, and a remark on each of those."""
    result, remarks = {}, {}
    for place, value in mine.items():
        shape = tape.order[place].shape
        if value.shape != shape and without_ones(value.shape) == without_ones(shape):
            remarks[place] = (f"as {shape_text(value.shape)}; what it belongs to is "
                              f"{shape_text(shape)}")
            value = value.reshape(shape)
        result[place] = value
    return result, remarks


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def shape_text(shape: tuple[int, ...]) -> str:
    return str(shape) if shape else "one number"


def alike(a: Tape, b: Tape) -> bool:
    """Have two runs of f taken the same way?"""
    return len(a.order) == len(b.order) and all(
        m.name == n.name and m.shape == n.shape
        for m, n in zip(a.order, b.order, strict=True))


# ---------------------------------------------------------------- names


def input_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names of the parameters of f, x1, x2, ... where it does not say."""
    try:
        parameters = [p for p in inspect.signature(f).parameters.values()
                      if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters][:count]
    return named + [f"x{i + 1}" for i in range(len(named), count)]


def closure_of(f: Any) -> dict[str, Any]:
    """The variables that f takes from outside."""
    try:
        found = inspect.getclosurevars(f)
    except TypeError:
        return {}
    return {**found.globals, **found.nonlocals}


def spelled(forms: Sequence[str], names: Mapping[Node, str], loss: str,
            tape: Tape) -> dict[str, int]:
    """Every way to write the gradient of every named step."""
    found: dict[str, int] = {}
    for form in forms:
        for node in tape.order:
            name = names.get(node, "L" if node is tape.root else None)
            if name is not None:
                key = form.format(name, L=loss).translate(PLAIN)
                found.setdefault(key, tape.place[node])
    return found
