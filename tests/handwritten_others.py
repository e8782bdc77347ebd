"""Hand-written backward passes of other families than `handwritten`: a recurrent network with
shared weights, attention, a gate, a standardised layer, and two branches with the same weights.
"""

from __future__ import annotations

from typing import Any

from handwritten import Case, Line, compiled, damage


def recurrent(rng: Any, kinds: tuple[str, ...] | None = None) -> Case:
    """Three steps with shared weights, mean squared error at the end."""
    n, d, k = int(rng.integers(3, 6)), int(rng.integers(2, 4)), int(rng.integers(2, 4))
    forward, plain = ["h0 = x0 @ U"], ["h0 = x0 @ U"]
    for i in (1, 2):
        forward += [f"z{i} = x{i} @ U + h{i - 1} @ V + b", f"h{i} = cr.tanh(z{i})"]
        plain += [f"z{i} = x{i} @ U + h{i - 1} @ V + b", f"h{i} = np.tanh(z{i})"]
    forward += ["y = h2 @ W", "loss = ((y - t) ** 2).mean()"]
    plain.append("y = h2 @ W")
    back = [
        Line("dy", "2 * (y - t) / y.size", [("mean", "2 * (y - t)"), ("factor",
             "(y - t) / y.size"), ("sign", "2 * (t - y) / y.size")]),
        Line("dW", "h2.T @ dy", [("operand", "z2.T @ dy"), ("mean", "h2.T @ dy / len(t)"),
             ("sign", "-h2.T @ dy")]),
        Line("dh2", "dy @ W.T", [("sign", "-dy @ W.T")]),
        Line("dz2", "dh2 * (1 - h2 ** 2)", [("slope", "dh2"), ("value", "dh2 * (1 - z2 ** 2)"),
             ("upstream", "1 - h2 ** 2"), ("sign", "dh2 * (1 + h2 ** 2)"),
             ("extra", "dh2 * (1 - h2 ** 2) ** 2")]),
        Line("dh1", "dz2 @ V.T", [("transpose", "dz2 @ V")]),
        Line("dz1", "dh1 * (1 - h1 ** 2)", [("slope", "dh1"), ("value", "dh1 * (1 - z1 ** 2)"),
             ("upstream", "1 - h1 ** 2")]),
        Line("dh0", "dz1 @ V.T", [("transpose", "dz1 @ V")]),
        Line("dV", "h0.T @ dz1 + h1.T @ dz2", [("path", "h1.T @ dz2"), ("path", "h0.T @ dz1"),
             ("transpose", "(h0.T @ dz1 + h1.T @ dz2).T")]),
        Line("dU", "x0.T @ dh0 + x1.T @ dz1 + x2.T @ dz2", [
            ("path", "x1.T @ dz1 + x2.T @ dz2"), ("path", "x0.T @ dh0 + x2.T @ dz2"),
            ("path", "x2.T @ dz2")]),
        Line("db", "dz1.sum(0) + dz2.sum(0)", [("path", "dz2.sum(0)"), ("path", "dz1.sum(0)"),
             ("mean", "dz1.mean(0) + dz2.mean(0)")]),
    ]
    inputs = [rng.normal(size=(n, d)) for _ in range(3)] + [
        rng.normal(size=(n, 2)), rng.normal(size=(d, k)) / 2, rng.normal(size=(k, k)) / 2,
        rng.normal(size=k) / 2, rng.normal(size=(k, 2))]
    return finished(["x0", "x1", "x2", "t", "U", "V", "b", "W"], inputs, forward, plain, back,
                    rng, kinds)


def attention(rng: Any, kinds: tuple[str, ...] | None = None) -> Case:
    """One head of attention over a short sequence."""
    n, d, k = int(rng.integers(3, 5)), int(rng.integers(2, 4)), int(rng.integers(2, 4))
    forward = ["q = x @ Q", "k = x @ K", "v = x @ V", "s = q @ k.T / 2.0",
               "p = cr.softmax(s, dim=1)", "o = p @ v", "loss = ((o - t) ** 2).sum()"]
    plain = ["q = x @ Q", "k = x @ K", "v = x @ V", "s = q @ k.T / 2.0",
             "p = np.exp(s) / np.exp(s).sum(1, keepdims=True)", "o = p @ v"]
    inner = "(dp * p).sum(1, keepdims=True)"
    back = [
        Line("do", "2 * (o - t)", [("factor", "o - t"), ("sign", "2 * (t - o)")]),
        Line("dv", "p.T @ do", [("transpose", "p @ do"), ("operand", "s.T @ do"),
             ("sign", "-(p.T @ do)")]),
        Line("dp", "do @ v.T", [("upstream", "np.ones_like(do) @ v.T")]),
        Line("ds", f"p * (dp - {inner})", [("sign", f"p * (dp + {inner})"), ("slope", "dp"),
             ("sign", f"-p * (dp - {inner})")]),
        Line("dq", "ds @ k / 2", [("factor", "ds @ k"), ("sign", "-ds @ k / 2"),
             ("transpose", "ds.T @ k / 2")]),
        Line("dk", "ds.T @ q / 2", [("transpose", "ds @ q / 2"), ("factor", "ds.T @ q")]),
        Line("dQ", "x.T @ dq", [("sign", "-x.T @ dq"), ("mean", "x.T @ dq / len(x)")]),
        Line("dK", "x.T @ dk", [("sign", "-x.T @ dk")]),
        Line("dV", "x.T @ dv", [("upstream", "x.T @ np.ones_like(dv)")]),
    ]
    inputs = [rng.normal(size=(n, d)), rng.normal(size=(n, k)), *[
        rng.normal(size=(d, k)) for _ in range(3)]]
    return finished(["x", "t", "Q", "K", "V"], inputs, forward, plain, back, rng, kinds)


def gate(rng: Any, kinds: tuple[str, ...] | None = None) -> Case:
    """A gate that chooses between its input and something new."""
    n, d = int(rng.integers(3, 6)), int(rng.integers(2, 4))
    forward = ["a = x @ A + c", "g = cr.sigmoid(a)", "b = x @ B", "u = cr.tanh(b)",
               "h = g * u + (1 - g) * r", "loss = (h * h).sum() / len(x)"]
    plain = ["a = x @ A + c", "g = 1 / (1 + np.exp(-a))", "b = x @ B", "u = np.tanh(b)",
             "h = g * u + (1 - g) * r"]
    back = [
        Line("dh", "2 * h / len(x)", [("mean", "2 * h"), ("sign", "-2 * h / len(x)")]),
        Line("dg", "dh * u - dh * r", [("path", "dh * u"), ("path", "-dh * r"),
             ("upstream", "u - r")]),
        Line("du", "dh * g", [("slope", "dh"), ("upstream", "g"), ("operand", "dh * a")]),
        Line("dr", "dh * (1 - g)", [("slope", "dh"), ("upstream", "1 - g")]),
        Line("da", "dg * g * (1 - g)", [("value", "dg * a * (1 - a)"), ("slope", "dg"),
             ("sign", "dg * g * (1 + g)"), ("upstream", "g * (1 - g)")]),
        Line("db", "du * (1 - u ** 2)", [("value", "du * (1 - b ** 2)"), ("slope", "du"),
             ("extra", "du * (1 - u ** 2) ** 2")]),
        Line("dA", "x.T @ da", [("transpose", "da.T @ x"), ("mean", "x.T @ da / len(x)")]),
        Line("dc", "da.sum(0)", [("batch", "da"), ("batch", "da[0]"), ("mean", "da.mean(0)")]),
        Line("dB", "x.T @ db", [("transpose", "db.T @ x"), ("sign", "-x.T @ db")]),
    ]
    inputs = [rng.normal(size=(n, d)), rng.normal(size=(d, d)), rng.normal(size=d),
              rng.normal(size=(d, d)), rng.normal(size=(n, d))]
    return finished(["x", "A", "c", "B", "r"], inputs, forward, plain, back, rng, kinds)


def standardised(rng: Any, kinds: tuple[str, ...] | None = None) -> Case:
    """A layer whose outputs are brought to mean 0 and deviation 1 over the batch."""
    n, d, k = int(rng.integers(3, 7)), int(rng.integers(2, 5)), int(rng.integers(2, 4))
    forward = ["z = x @ W", "m = z.mean(0)", "c = z - m", "q = (c * c).mean(0)",
               "s = cr.sqrt(q + 0.01)", "y = c / s", "o = y * g + b",
               "loss = ((o - t) ** 2).mean()"]
    plain = [line.replace("cr.", "np.") for line in forward[:-1]]
    back = [
        Line("do", "2 * (o - t) / o.size", [("mean", "2 * (o - t)"),
             ("factor", "(o - t) / o.size"), ("sign", "-2 * (o - t) / o.size")]),
        Line("dg", "(do * y).sum(0)", [("batch", "do * y"), ("mean", "(do * y).mean(0)"),
             ("operand", "(do * c).sum(0)")]),
        Line("db", "do.sum(0)", [("batch", "do"), ("sign", "-do.sum(0)")]),
        Line("dy", "do * g", [("slope", "do * 1"), ("upstream", "np.ones_like(do) * g")]),
        Line("ds", "(-dy * c / s ** 2).sum(0)", [("sign", "(dy * c / s ** 2).sum(0)"),
             ("mean", "(-dy * c / s ** 2).mean(0)")]),
        Line("dq", "ds / (2 * s)", [("slope", "ds * 1"), ("factor", "ds / s"),
             ("upstream", "1 / (2 * s)"), ("value", "ds / (2 * q)")]),
        Line("dc", "dy / s + dq * 2 * c / len(x)", [("path", "dy / s"),
             ("path", "dq * 2 * c / len(x)"), ("mean", "dy / s + dq * 2 * c")]),
        Line("dm", "-dc.sum(0)", [("sign", "dc.sum(0)"), ("batch", "-dc[0]")]),
        Line("dz", "dc + dm / len(x)", [("path", "dc * 1"), ("mean", "dc + dm")]),
        Line("dW", "x.T @ dz", [("transpose", "(x.T @ dz).T"), ("mean", "x.T @ dz / len(x)"),
             ("sign", "-(x.T @ dz)")]),
    ]
    inputs = [rng.normal(size=(n, d)), rng.normal(size=(n, k)), rng.normal(size=(d, k)),
              rng.normal(size=k) + 1, rng.normal(size=k)]
    return finished(["x", "t", "W", "g", "b"], inputs, forward, plain, back, rng, kinds)


def siamese(rng: Any, kinds: tuple[str, ...] | None = None) -> Case:
    """Two inputs through the same layer, and a score that falls with their distance."""
    n, d, k = int(rng.integers(3, 6)), int(rng.integers(2, 5)), int(rng.integers(2, 4))
    forward = ["u = x @ W + b", "p = cr.tanh(u)", "v = y @ W + b", "q = cr.tanh(v)", "e = p - q",
               "r = (e * e).sum(1)", "l = cr.exp(-r)", "loss = (l * t).mean()"]
    plain = [line.replace("cr.", "np.") for line in forward[:-1]]
    back = [
        Line("dl", "t / len(t)", [("mean", "t * 1"), ("sign", "-t / len(t)")]),
        Line("dr", "-dl * l", [("sign", "dl * l"), ("upstream", "-l"), ("slope", "-dl")]),
        Line("de", "dr[:, None] * 2 * e", [("factor", "dr[:, None] * e"), ("upstream", "2 * e")]),
        Line("dp", "de * 1", [("sign", "-de")]),
        Line("dq", "-de", [("sign", "de * 1")]),
        Line("du", "dp * (1 - p ** 2)", [("value", "dp * (1 - u ** 2)"), ("slope", "dp * 1"),
             ("extra", "dp * (1 - p ** 2) ** 2"), ("operand", "dp * (1 - q ** 2)")]),
        Line("dv", "dq * (1 - q ** 2)", [("value", "dq * (1 - v ** 2)"), ("slope", "dq * 1"),
             ("upstream", "1 - q ** 2")]),
        Line("dW", "x.T @ du + y.T @ dv", [("path", "x.T @ du"), ("path", "y.T @ dv"),
             ("mean", "(x.T @ du + y.T @ dv) / len(x)")]),
        Line("db", "du.sum(0) + dv.sum(0)", [("path", "du.sum(0)"), ("path", "dv.sum(0)"),
             ("sign", "-du.sum(0) - dv.sum(0)")]),
    ]
    inputs = [rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=n),
              rng.normal(size=(d, k)) / 2, rng.normal(size=k)]
    return finished(["x", "y", "t", "W", "b"], inputs, forward, plain, back, rng, kinds)


OTHERS = (recurrent, attention, gate, standardised, siamese)


def finished(names: list[str], inputs: list[Any], forward: list[str], plain: list[str],
             back: list[Line], rng: Any, kinds: tuple[str, ...] | None) -> Case:
    """The case, which reports all gradients, some, or those of the inputs alone."""
    kind, lines, damaged = damage(back, rng, kinds)
    targets = [line.target for line in back]
    leaves = [f"d{n}" for n in names]
    mode = rng.choice(["all", "some", "leaves"])
    if mode == "leaves":
        result = "(" + ", ".join(n if n in targets else "None" for n in leaves) + ",)"
    else:
        shown = [n for n in targets if mode == "all" or n in leaves or n == damaged
                 or rng.random() < 0.5]
        result = "{" + ", ".join(f'"{n}": {n}' for n in shown) + "}"
    return Case(compiled(names, forward, "loss"), tuple(inputs),
                compiled(names, [*plain, *lines], result), kind,
                "\n".join([*forward, "--", *lines, result]))
