"""Recurrent layers: the same cell at every time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import shaping
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .display import type_text
from .linear import empty_parameter, whole
from .module import Module
from .naming import misfit
from .parameter import Parameter

# One time step: (x @ W_ih.T + b_ih, W_hh, b_hh, state) -> the state after it, hidden part first.
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, "Tensor | None", State], State]


def _plain(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(x: Tensor, weight: Tensor, bias: Tensor | None, state: State) -> State:
        return (activation(x + F.linear(state[0], weight, bias)),)
    return cell


def _lstm(x: Tensor, weight: Tensor, bias: Tensor | None, state: State) -> State:
    i, f, g, o = (x + F.linear(state[0], weight, bias)).chunk(4, dim=-1)
    c = rows.sigmoid(f) * state[1] + rows.sigmoid(i) * rows.tanh(g)
    return rows.sigmoid(o) * rows.tanh(c), c


def _gru(x: Tensor, weight: Tensor, bias: Tensor | None, state: State) -> State:
    h = state[0]
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, dim=-1), F.linear(h, weight, bias).chunk(3, dim=-1)
    z = rows.sigmoid(xz + hz)
    n = rows.tanh(xn + rows.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


class _Kind:
    """How many gates a cell has, how many parts its state has, and its step."""

    def __init__(self, gates: int, parts: int, cell: Callable[[Module], Cell]) -> None:
        self.gates, self.parts, self.cell = gates, parts, cell


def _activation(module: Any) -> Cell:
    if module.nonlinearity not in ("tanh", "relu"):
        raise SettingError(f"{type(module).__name__}: nonlinearity={module.nonlinearity!r} must be "
                           "'tanh' or 'relu'")
    return _plain(rows.tanh if module.nonlinearity == "tanh" else F.relu)


RNN_KIND = _Kind(1, 1, _activation)
LSTM_KIND = _Kind(4, 2, lambda module: _lstm)
GRU_KIND = _Kind(3, 1, lambda module: _gru)


def _zeros(like: Tensor, *shape: int) -> Tensor:
    return new(np.zeros(shape, like.dtype))  # type: ignore[no-any-return]


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters with PyTorch's names, layers, directions.

    input (L, N, input_size), (N, L, input_size) with `batch_first`, or (L, input_size). States are
    (num_layers · directions, N, hidden_size), without N for an input without N. Returns the
    hidden states of the last layer at every step, both directions side by side, and the last
    states of all layers. `dropout` acts on what goes from one layer to the next.
    """

    _kind: _Kind

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        whole(self, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers,
              proj_size=proj_size)
        name = type(self).__name__
        if not hidden_size or not num_layers:
            raise SettingError(f"{name}: hidden_size={hidden_size} and num_layers={num_layers} "
                               "must be at least 1")
        if proj_size and (mode != "LSTM" or proj_size >= hidden_size):
            raise SettingError(f"{name}: proj_size={proj_size} must be smaller than hidden_size="
                               f"{hidden_size}, and only LSTM has it")
        if not 0 <= dropout <= 1:
            raise SettingError(f"{name}: dropout={dropout!r} must be a probability")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = self._kind.gates * hidden_size
        out = proj_size or hidden_size
        self.suffixes: list[list[str]] = []
        for layer in range(num_layers):
            wide = input_size if layer == 0 else out * (1 + bidirectional)
            names = [f"_l{layer}", f"_l{layer}_reverse"][:1 + bidirectional]
            self.suffixes.append(names)
            for suffix in names:
                self.register_parameter(f"weight_ih{suffix}", empty_parameter(
                    gates, wide, dtype=dtype))
                self.register_parameter(f"weight_hh{suffix}", empty_parameter(
                    gates, out, dtype=dtype))
                if bias:
                    self.register_parameter(f"bias_ih{suffix}", empty_parameter(gates, dtype=dtype))
                    self.register_parameter(f"bias_hh{suffix}", empty_parameter(gates, dtype=dtype))
                if proj_size:
                    self.register_parameter(f"weight_hr{suffix}", empty_parameter(
                        proj_size, hidden_size, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew, uniform in ±1/√hidden_size."""
        bound = self.hidden_size ** -0.5
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: PyTorch rearranges memory for a GPU library here."""

    def _run(self, input: Tensor, hx: State | None) -> tuple[Tensor, State]:
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            axes = "N, L" if self.batch_first else "L, N"
            raise misfit(self, input, f"it needs ({axes}, {self.input_size}) or "
                         f"(L, {self.input_size})")
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        if not x.shape[0]:
            raise misfit(self, input, "it needs at least one time step")
        count = x.shape[1]
        starts = self._starts(x, hx, batched, count)
        cell = self._kind.cell(self)
        ends: list[State] = []
        for layer, suffixes in enumerate(self.suffixes):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            sides = []
            for direction, suffix in enumerate(suffixes):
                number = layer * len(suffixes) + direction
                side, end = self._along(cell, x, suffix, bool(direction),
                                        tuple(part[number] for part in starts))
                sides.append(side)
                ends.append(end)
            x = sides[0] if len(sides) == 1 else shaping.cat(sides, -1)
        states = tuple(shaping.stack([end[part] for end in ends])
                       for part in range(self._kind.parts))
        if not batched:
            return x.squeeze(1), tuple(state.squeeze(1) for state in states)
        return x.transpose(0, 1) if self.batch_first else x, states

    def _starts(self, x: Tensor, hx: State | None, batched: bool, count: int) -> State:
        """The states before the first step, each (layers · directions, N, size)."""
        layers = sum(map(len, self.suffixes))
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[:self._kind.parts]
        if hx is None:
            return tuple(_zeros(x, layers, count, size) for size in sizes)
        if len(hx) != len(sizes) or not all(isinstance(part, Tensor) for part in hx):
            raise TypeError(f"{type(self).__name__}: the second argument is the pair (h_0, c_0)"
                            if len(sizes) == 2 else
                            f"{type(self).__name__}: the second argument is the tensor h_0")
        for name, part, size in zip("hc", hx, sizes, strict=False):
            wanted = (layers, count, size) if batched else (layers, size)
            if tuple(part.shape) != wanted:
                raise ShapeError(f"{type(self).__name__}: {name}_0 {type_text(part)} must be "
                                 f"{wanted}: layers and directions, {'batch, ' * batched}size")
        return hx if batched else tuple(part.unsqueeze(1) for part in hx)

    def _along(self, cell: Cell, x: Tensor, suffix: str, backwards: bool,
               state: State) -> tuple[Tensor, State]:
        """One layer in one direction; the inputs of all steps are projected by one product."""
        def get(name: str) -> Any:
            return getattr(self, name + suffix, None)

        projected = F.linear(x, get("weight_ih"), get("bias_ih"))
        weight, bias, short = get("weight_hh"), get("bias_hh"), get("weight_hr")
        steps = range(x.shape[0])
        outputs = []
        for t in reversed(steps) if backwards else steps:
            state = cell(projected[t], weight, bias, state)
            if short is not None:
                state = (F.linear(state[0], short), *state[1:])
            outputs.append(state[0])
        return shaping.stack(outputs[::-1] if backwards else outputs), state

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, usual in (("proj_size", 0), ("num_layers", 1), ("bias", True),
                            ("batch_first", False), ("dropout", 0), ("bidirectional", False)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(RNNBase):
    """hₜ = tanh(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh), or relu (Elman 1990).

    See `RNNBase` for shapes. Returns output and h_n.

    >>> import chainrule as cr
    >>> output, h = cr.nn.RNN(3, 5, num_layers=2)(cr.randn(7, 4, 3))
    >>> tuple(output.shape), tuple(h.shape)
    ((7, 4, 5), (2, 4, 5))
    """

    _kind = RNN_KIND

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 nonlinearity: str = "tanh", bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(f"RNN_{str(nonlinearity).upper()}", input_size, hidden_size, num_layers,
                         bias, batch_first, dropout, bidirectional, dtype=dtype)
        self.nonlinearity = nonlinearity
        _activation(self)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    i, f, g, o = σ, σ, tanh, σ of the four parts of W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh;
    cₜ = f cₜ₋₁ + i g; hₜ = o tanh(cₜ), and W_hr hₜ with `proj_size`. See `RNNBase` for shapes.
    Takes and returns (h, c) together: output, (h_n, c_n).

    >>> import chainrule as cr
    >>> output, (h, c) = cr.nn.LSTM(3, 5, batch_first=True)(cr.randn(4, 7, 3))
    >>> tuple(output.shape), tuple(h.shape), tuple(c.shape)
    ((4, 7, 5), (1, 4, 5), (1, 4, 5))
    """

    _kind = LSTM_KIND

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 proj_size: int = 0, device: Any = None, dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, dtype=dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, None if hx is None else tuple(hx))
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as PyTorch.

    r, z = σ(W_i xₜ + b_i + W_h hₜ₋₁ + b_h), each with its own part of the parameters;
    n = tanh(W_in xₜ + b_in + r (W_hn hₜ₋₁ + b_hn)); hₜ = (1 − z) n + z hₜ₋₁.
    See `RNNBase` for shapes. Returns output and h_n.

    >>> import chainrule as cr
    >>> output, h = cr.nn.GRU(3, 5, bidirectional=True)(cr.randn(7, 4, 3))
    >>> tuple(output.shape), tuple(h.shape)
    ((7, 4, 10), (2, 4, 5))
    """

    _kind = GRU_KIND

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


# ---- one step -----------------------------------------------------------------------------------


class RNNCellBase(Module):
    """What the cells share: one step on input (N, input_size) or (input_size,), states alike."""

    _kind: _Kind
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        whole(self, input_size=input_size, hidden_size=hidden_size)
        if not hidden_size:
            raise SettingError(f"{type(self).__name__}: hidden_size=0 must be at least 1")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = self._kind.gates * hidden_size
        self.weight_ih = empty_parameter(gates, input_size, dtype=dtype)
        self.weight_hh = empty_parameter(gates, hidden_size, dtype=dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, empty_parameter(gates, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew, uniform in ±1/√hidden_size."""
        bound = self.hidden_size ** -0.5
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _step(self, input: Tensor, state: State | None) -> State:
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise misfit(self, input, f"it needs (N, {self.input_size}) or ({self.input_size},)")
        wanted = (*input.shape[:-1], self.hidden_size)
        if state is None:
            state = (_zeros(input, *wanted),) * self._kind.parts
        for part in state:
            if tuple(part.shape) != wanted:
                raise ShapeError(f"{type(self).__name__}: the state {type_text(part)} must be "
                                 f"{wanted}, as many rows as the input {type_text(input)}")
        projected = F.linear(input, self.weight_ih, self.bias_ih)
        return self._kind.cell(self)(projected, self.weight_hh, self.bias_hh, state)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            text += ", bias=False"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += ", nonlinearity=relu"
        return text


class RNNCell(RNNCellBase):
    """One step of `RNN`: (input, h) -> h.

    >>> import chainrule as cr
    >>> tuple(cr.nn.RNNCell(3, 5)(cr.randn(4, 3)).shape)
    (4, 5)
    """

    _kind = RNN_KIND

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        self.nonlinearity = nonlinearity
        _activation(self)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of `LSTM`: (input, (h, c)) -> (h, c).

    >>> import chainrule as cr
    >>> h, c = cr.nn.LSTMCell(3, 5)(cr.randn(4, 3))
    >>> tuple(h.shape), tuple(c.shape)
    ((4, 5), (4, 5))
    """

    _kind = LSTM_KIND

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, Tensor]:
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            raise TypeError("LSTMCell: the second argument is the pair (h, c)")
        h, c = self._step(input, None if hx is None else tuple(hx))
        return h, c


class GRUCell(RNNCellBase):
    """One step of `GRU`: (input, h) -> h.

    >>> import chainrule as cr
    >>> tuple(cr.nn.GRUCell(3, 5)(cr.randn(4, 3)).shape)
    (4, 5)
    """

    _kind = GRU_KIND

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(input, None if hx is None else (hx,))[0]
