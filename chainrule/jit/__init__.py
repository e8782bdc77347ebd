"""`cr.compile`: functions run once by Python, without numbers, and from then on as machine code.

compiled    the callable with its entries
tracing     one run, and what it must not do
guards      what the code took for fixed
slots       how the run sees tensors from outside
capture     the run: lifting, gradients, random numbers
memory      what shares memory in the run, and writes
layout      how values would lie in memory in eager execution
options     optimisers in the run
program     the run closed to a graph, its inputs and outputs
numbers     Python numbers among the arguments that change from call to call
entry       one compiled run and how it is run
checks      when it serves, and if not, why not
call, fast  the short ways of a call that is like the one before
ways        which way a call goes
outside     results on the eager tape
interpret   the reference in NumPy
report      what a function became
"""

from chainrule.compiler import get_num_threads, num_threads, set_num_threads

from .compiled import Compiled, RecompileWarning, compile  # noqa: A004

__all__ = ["Compiled", "RecompileWarning", "compile", "get_num_threads", "num_threads",
           "set_num_threads"]
