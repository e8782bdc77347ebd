"""What to write instead where a compiled function asks for the numbers in a tensor."""

from __future__ import annotations

_OUTSIDE = ("do it outside the compiled function and pass its result as an argument, or return "
            "what it needs and do it after the call")

# Each is the end of the sentence "Instead, …".
CURES = {
    ".item()": "return the tensor and write .item() after the call. Inside, a tensor of one number "
               "calculates like a number: leave .item() out",
    "float()": "return the tensor and write float(...) after the call. Inside, a tensor of one "
               "number calculates like a number: leave float() out, or write x.float()",
    "int()": "return the tensor and write int(...) after the call. Inside, x.long() rounds towards "
             "0 without leaving tensors. A size or a count can be a Python argument",
    "an index": "index with the tensor itself, x[i] or x.index_select(0, i), which picks the same "
                "elements; a size or a number of repetitions can be a Python argument",
    ".numpy()": "write the computation with cr's functions (most of NumPy's have their name "
                "there), or return the tensor and use NumPy after the call",
    ".tolist()": "return the tensor and write .tolist() after the call",
    "print()": "return the tensor and print it after the call; its shape and dtype can be printed "
               "inside",
    "if": "choose between values with cr.where(condition, a, b); a choice that Python must make "
          "can depend on a Python argument, or be made outside by calling one of two functions",
    "a mask": "keep the shape: cr.where(mask, x, 0), or x * mask, and for a mean "
              "(x * mask).sum() / mask.sum(). x[mask] = number works. What x[mask] picks has a "
              "size that the numbers decide: pick outside, or pass the indices as an argument",
    "nonzero()": "keep the shape: use the condition itself, cr.where(condition, a, b) or "
                 "x * condition, or call nonzero() outside and pass the indices as an argument",
    "multinomial()": "draw outside and pass the indices, or draw one index per row with Gumbel "
                     "noise: (weights.log() - (-cr.rand_like(weights).log()).log()).argmax(-1)",
    "slicing": "keep the shape: cr.where(cr.arange(n) < stop, x, 0); or let the limits be Python "
               "arguments, for each of which the function is compiled",
    "load_state_dict()": "call load_state_dict() outside; the compiled function sees the new "
                         "numbers at its next call",
}

_KINDS = (("indexing with a mask", "a mask"), ("masked", "a mask"), ("the text", "print()"),
          ("format", "print()"), ("the truth", "if"))


def cure(what: str) -> str:
    """The end of an error message: what to write instead of `what`."""
    kind = next((kind for start, kind in _KINDS if what.startswith(start)), what)
    return f"Instead, {CURES.get(kind, _OUTSIDE)}."
