"""From a graph to machine code: arrays, kernels, memory, LLVM text, a table of calls.

| file | what it does |
|---|---|
| `lower.py`, `arrays.py`, `simplify.py`, `index.py` | rows become a few kinds of arrays |
| `schedule.py`, `kernel.py` | arrays become loop nests; what is computed where |
| `memory.py` | where each array stands |
| `nest.py`, `emit.py`, `access.py`, `reduction.py` | loop nests become LLVM text |
| `registers.py`, `math*.py` | instructions and mathematics on vectors |
| `group.py` | kernels over the same rows take turns, block by block |
| `contract*.py` | matrix products for their exact shape |
| `build.py`, `link.py`, `cache.py` | text becomes machine code, kept on disk |
| `driver.py`, `entrance.py` | the table of calls, and the way in from Python |
| `pool.py`, `threads.py` | threads |
| `executable.py` | all stages in order |
| `verify.py`, `report.py` | what must hold after each; what came out |
"""

from chainrule.compiler.executable import Executable, compile_graph
from chainrule.compiler.lanes import functions as math  # noqa: F401  (gives the emitter its functions)
from chainrule.compiler.workers.threads import get_num_threads, num_threads, set_num_threads

__all__ = ["Executable", "compile_graph", "get_num_threads", "num_threads", "set_num_threads"]
