"""Networks and simulations as users write them, compiled and not: losses, state, gradients agree.

    python -m pytest tests/test_jit_networks.py
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.nn import functional as F

# A program is given `jit`, the decorator of its steps. It returns what it trains, and call(i).
Jit = Callable[[Any], Any]
Built = tuple[list[Any], Callable[[int], Any]]
PROGRAMS: dict[str, Callable[[Jit], Built]] = {}
STEPS = 10
BOUNDS = {cr.float32: 1e-4, cr.float64: 1e-10}


def program(build: Callable[[Jit], Built]) -> Callable[[Jit], Built]:
    PROGRAMS[build.__name__] = build
    return build


def data(seed: int, *shape: int) -> Any:
    x = np.random.default_rng(seed).normal(size=shape)
    return cr.tensor(x.astype("f4" if cr.get_default_dtype() == cr.float32 else "f8"))


def labels(seed: int, classes: int, *shape: int) -> Any:
    return cr.tensor(np.random.default_rng(seed).integers(0, classes, shape))


def digits(count: int) -> tuple[Any, Any]:
    images, classes = cr.data.load_digits()
    scaled = images[:count, None] / 16.0
    return (cr.tensor(scaled.astype("f4")).to(cr.get_default_dtype()),
            cr.tensor(classes[:count].astype("i8")))


def trained(jit: Jit, model: Any, optimizer: Any, loss_fn: Any) -> Any:
    @jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    return step


# ---------------------------------------------------------------- images

class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(16 * 2 * 2, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(self.drop(x.flatten(1)))


@program
def cnn(jit: Jit) -> Built:
    model = ConvNet()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    x, y = digits(320)
    step = trained(jit, model, optimizer, nn.CrossEntropyLoss())
    return [model, optimizer], lambda i: step(x[32 * (i % 10):][:32], y[32 * (i % 10):][:32])


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: Any = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride=stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Any) -> Any:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


@program
def resnet(jit: Jit) -> Built:
    model = nn.Sequential(Block(1, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(16, 10))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    x, y = digits(160)
    step = trained(jit, model, optimizer, nn.CrossEntropyLoss(label_smoothing=0.1))
    return [model, optimizer], lambda i: step(x[16 * (i % 10):][:16], y[16 * (i % 10):][:16])


# ---------------------------------------------------------------- sequences

class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1),
                                  nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.feed(self.norm2(x))


@program
def transformer(jit: Jit) -> Built:
    model = nn.Sequential(nn.Linear(8, 32), Encoder(32, 4), Encoder(32, 4))
    head = nn.Linear(32, 10)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, eps=1e-5)
    x, y = digits(160)
    rows = x.reshape(160, 8, 8)

    @jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(model(x).mean(dim=1)), y)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss
    return [model, head, optimizer], lambda i: step(rows[16 * (i % 10):][:16],
                                                    y[16 * (i % 10):][:16])


class GPT(nn.Module):
    mask: Any

    def __init__(self, vocabulary: int, width: int, length: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ln1, self.ln2, self.ln3 = (nn.LayerNorm(width) for _ in range(3))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        self.register_buffer("mask", cr.tril(cr.ones(length, length)) == 0)

    def forward(self, tokens: Any) -> Any:
        b, t = tokens.shape
        x = self.token(tokens) + self.place(cr.arange(t))
        c = x.shape[-1]
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2)
                   for z in self.qkv(self.ln1(x)).split(c, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(c // self.heads)
        weights = F.softmax(scores.masked_fill(self.mask[:t, :t], -math.inf), dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, t, c))
        x = x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))
        return self.head(self.ln3(x))


@program
def gpt_tied_with_decay_groups_and_schedule(jit: Jit) -> Built:
    model = GPT(27, 32, 16, 4)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = optim.AdamW([{"params": decay, "weight_decay": 0.1},
                             {"params": rest, "weight_decay": 0.0}], lr=3e-3, betas=(0.9, 0.95),
                            eps=1e-5)
    warm = optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scheduler = optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [3])

    @jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def call(i: int) -> Any:
        text = labels(i, 27, 8, 17)
        loss = step(text[:, :-1], text[:, 1:])
        scheduler.step()
        return loss
    return [model, optimizer], call


def recurrent(jit: Jit, gates: int, cell: Callable[..., Any]) -> Built:
    inside, hidden = nn.Linear(5, gates * 16), nn.Linear(16, gates * 16, bias=False)
    out = nn.Linear(16, 3)
    parts = nn.ModuleList([inside, hidden, out])
    optimizer = optim.RMSprop(parts.parameters(), lr=1e-3, centered=True, momentum=0.9)

    @jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        state = (cr.zeros(x.size(0), 16), cr.zeros(x.size(0), 16))
        for t in range(x.size(1)):
            state = cell(inside(x[:, t]), hidden, *state)
        loss = F.cross_entropy(out(state[0]), y)
        loss.backward()
        nn.utils.clip_grad_value_(parts.parameters(), 0.1)
        optimizer.step()
        return loss
    return [parts, optimizer], lambda i: step(data(i, 16, 8, 5), labels(i, 3, 16))


@program
def lstm(jit: Jit) -> Built:
    def cell(x: Any, w: Any, h: Any, c: Any) -> Any:
        i, f, g, o = (x + w(h)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    return recurrent(jit, 4, cell)


# ---------------------------------------------------------------- reinforcement

@program
def dqn_with_target(jit: Jit) -> Built:
    online = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    target = copy.deepcopy(online)
    optimizer = optim.Adam(online.parameters(), lr=1e-3, amsgrad=True)

    @jit
    def step(s: Any, a: Any, r: Any, after: Any, done: Any) -> Any:
        q = online(s).gather(1, a.unsqueeze(1)).squeeze(1)
        with cr.no_grad():
            wanted = r + 0.99 * target(after).max(dim=1).values * (1 - done)
        loss = F.smooth_l1_loss(q, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with cr.no_grad():
            for p, t in zip(online.parameters(), target.parameters(), strict=True):
                t.mul_(0.995).add_(p, alpha=0.005)
        return loss
    return [online, target, optimizer], lambda i: step(
        data(i, 64, 4), labels(i, 2, 64), data(i + 50, 64), data(i + 99, 64, 4),
        (data(i + 7, 64) > 1).to(cr.get_default_dtype()))


# ---------------------------------------------------------------- derivatives inside

@program
def physics_informed(jit: Jit) -> Built:
    model = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(),
                          nn.Linear(20, 1))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @jit
    def step(points: Any) -> Any:
        optimizer.zero_grad()
        x = points[:, :1].clone().requires_grad_(True)
        t = points[:, 1:].clone().requires_grad_(True)
        u = model(cr.cat([x, t], dim=1))
        u_x, u_t = cr.autograd.grad(u.sum(), (x, t), create_graph=True)
        u_xx, = cr.autograd.grad(u_x.sum(), x, create_graph=True)
        loss = ((u_t + u * u_x - 0.01 * u_xx) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss
    return [model, optimizer], lambda i: step(data(i, 50, 2))


@program
def maml(jit: Jit) -> Built:
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @jit
    def step(xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        def loss_of(p: Any, x: Any, y: Any) -> Any:
            return F.mse_loss(cr.func.functional_call(model, p, (x,)), y)

        optimizer.zero_grad()
        params = dict(model.named_parameters())
        losses = []
        for task in range(xs.size(0)):
            grads = cr.func.grad(loss_of)(params, xs[task], ys[task])
            fast = {k: p - 0.1 * grads[k] for k, p in params.items()}
            losses.append(loss_of(fast, xq[task], yq[task]))
        loss = cr.stack(losses).mean()
        loss.backward()
        optimizer.step()
        return loss
    return [model, optimizer], lambda i: step(*(data(4 * i + k, 3, 10, 1) for k in range(4)))


@program
def private_gradients(jit: Jit) -> Built:
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

    @jit
    def step(x: Any, y: Any) -> Any:
        params = {k: p.detach() for k, p in model.named_parameters()}

        def loss_of(p: Any, x: Any, y: Any) -> Any:
            out = cr.func.functional_call(model, p, (x.unsqueeze(0),))
            return F.cross_entropy(out, y.unsqueeze(0))
        grads = cr.func.vmap(cr.func.grad(loss_of), in_dims=(None, 0, 0))(params, x, y)
        norms = cr.sqrt(sum((g.flatten(1) ** 2).sum(1) for g in grads.values()))
        scale = (1.0 / (norms + 1e-6)).clamp(max=1.0)
        with cr.no_grad():
            for name, p in model.named_parameters():
                clipped = cr.einsum("n,n...->...", scale, grads[name])
                p.sub_(0.1 * (clipped + 0.1 * cr.randn_like(p)) / x.size(0))
        return norms.mean()
    return [model], lambda i: step(data(i, 16, 6), labels(i, 3, 16))


@program
def k_means(jit: Jit) -> Built:
    centres = data(5, 4, 2)

    @jit
    def step(x: Any) -> tuple[Any, Any]:
        distances = ((x[:, None, :] - centres[None]) ** 2).sum(-1)
        nearest = distances.argmin(dim=1)
        chosen = F.one_hot(nearest, 4).to(x.dtype)
        counts = chosen.sum(0).clamp(min=1).unsqueeze(1)
        centres.copy_(chosen.t() @ x / counts)
        return distances.amin(1).mean(), nearest
    x = data(6, 100, 2)
    return [centres], lambda i: step(x)


@program
def teacher_and_accumulation(jit: Jit) -> Built:
    student = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    teacher = copy.deepcopy(student)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    optimizer = optim.SGD(student.parameters(), lr=0.1, momentum=0.9)

    @jit
    def accumulate(x: Any, y: Any) -> Any:
        out = student(x)
        known = F.kl_div(F.log_softmax(out / 2, 1), F.softmax(teacher(x) / 2, 1),
                         reduction="batchmean")
        loss = (F.cross_entropy(out, y) + known) / 3
        loss.backward()
        return loss

    @jit
    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()
        with cr.no_grad():
            for slow, p in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.mul_(0.99).add_(p, alpha=0.01)

    def call(i: int) -> Any:
        loss = accumulate(data(i, 16, 8), labels(i, 4, 16))
        if i % 3 == 2:
            update()
        return loss
    return [student, teacher, optimizer], call


# ---------------------------------------------------------------- optimisers and schedulers

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_dampened": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, maximize=True),
    "sgd_nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw_amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
    "rmsprop_centered": lambda p: optim.RMSprop(p, lr=0.01, centered=True, weight_decay=0.01),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.01),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5, rho=0.8),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: optim.lr_scheduler.StepLR(o, 2, 0.5),
    "multi_step": lambda o: optim.lr_scheduler.MultiStepLR(o, [2, 4], 0.3),
    "exponential": lambda o: optim.lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "linear": lambda o: optim.lr_scheduler.LinearLR(o),
    "lambda": lambda o: optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9 ** epoch),
    "one_cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=12),
    "plateau": lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "cyclic": lambda o: optim.lr_scheduler.CyclicLR(o, 0.01, 0.2, 3, cycle_momentum=False),
    "restarts": lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
}


def regression(jit: Jit, make: Callable[[Any], Any], schedule: Any = None) -> Built:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = make(model.parameters())
    scheduler = None if schedule is None else schedule(optimizer)
    step = trained(jit, model, optimizer, nn.MSELoss())

    def call(i: int) -> Any:
        loss = step(data(i, 12, 4), data(i + 1, 12, 2))
        if scheduler is not None:
            scheduler.step(*([loss.item()] if schedule is SCHEDULERS["plateau"] else []))
        return loss
    return [model, optimizer], call


# ---------------------------------------------------------------- the comparison

def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [x for v in tree.values() for x in leaves(v)]
    if isinstance(tree, list | tuple):
        return [x for v in tree for x in leaves(v)]
    return [tree]


def state(things: list[Any]) -> list[Any]:
    """Parameters, their gradients, buffers and optimiser state, as NumPy arrays or None."""
    found: list[Any] = []
    for thing in things:
        if isinstance(thing, nn.Module):
            found += [*thing.parameters(), *(p.grad for p in thing.parameters()), *thing.buffers()]
        elif isinstance(thing, cr.Tensor):
            found += [thing, thing.grad]
        else:
            found += leaves(thing.state_dict())
    return [x.detach().numpy().copy() if isinstance(x, cr.Tensor) else x for x in found]


def history(build: Callable[[Jit], Built], jit: Jit) -> list[list[Any]]:
    """After each step: what it returned, and the state."""
    cr.manual_seed(0)
    things, call = build(jit)
    for thing in things:
        if isinstance(thing, nn.Module):
            thing.to(cr.get_default_dtype())
    return [[*(x.detach().numpy().copy() for x in leaves(call(i))), *state(things)]
            for i in range(STEPS)]


def compare(build: Callable[[Jit], Built], dtype: Any) -> None:
    with cr.settings.using(default_dtype=dtype):
        eager = history(build, lambda function: function)
        compiled = history(build, cr.compile)
    assert np.isfinite(eager[-1][0]).all()
    for i, (wanted, got) in enumerate(zip(eager, compiled, strict=True)):
        assert len(wanted) == len(got)
        for k, (a, b) in enumerate(zip(wanted, got, strict=True)):
            if not isinstance(a, np.ndarray):
                assert a == b, f"step {i}, value {k}: {a} and {b}"
                continue
            assert a.dtype == b.dtype and a.shape == b.shape
            # A bias before a normalisation, or of attention's keys, has the gradient 0: what is
            # there is rounding. (With its usual eps Adam would make steps of full length of it.)
            size = 0.1 + float(np.abs(a).max(initial=0))
            error = float(np.abs(a.astype("f8") - b).max(initial=0)) / size
            assert error <= BOUNDS[dtype], f"step {i}, value {k} {a.shape}: {error:.2g} relative"


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_network_trains_the_same(name: str, dtype: Any) -> None:
    compare(PROGRAMS[name], dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser(name: str) -> None:
    compare(lambda jit: regression(jit, OPTIMIZERS[name]), cr.float64)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_cause_no_compilation(name: str) -> None:
    made: list[Any] = []

    def jit(function: Any) -> Any:
        made.append(cr.compile(function))
        return made[-1]
    compare(lambda jit_: regression(jit_, OPTIMIZERS["sgd_nesterov"], SCHEDULERS[name]),
            cr.float64)
    cr.manual_seed(0)
    _, call = regression(jit, OPTIMIZERS["adam"], SCHEDULERS[name])
    for i in range(5):
        call(i)
    assert [r.why for r in made[0].compiles] == ["first call"]
