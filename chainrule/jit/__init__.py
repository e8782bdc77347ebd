"""`cr.compile`: functions run once by Python, without numbers, and from then on as machine code.

compiled    the callable with its entries
tracing     one run, and what it must not do
guards      what the code took for fixed
slots       how the run sees tensors from outside
capture     the run: lifting, gradients, random numbers
memory      what shares memory in the run, and writes
options     optimisers in the run
program     the run closed to a graph, its inputs and outputs
entry       one compiled run, when it serves and how it is called
call, fast  the short ways of a call that is like the one before
outside     results on the eager tape
interpret   the reference in NumPy
report      what a function became
"""

from chainrule.compiler import get_num_threads, num_threads, set_num_threads

from .compiled import Compiled, RecompileWarning, compile  # noqa: A004

__all__ = ["Compiled", "RecompileWarning", "compile", "get_num_threads", "num_threads",
           "set_num_threads"]
