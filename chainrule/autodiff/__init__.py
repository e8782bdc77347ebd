"""Walks over recorded nodes: `reverse`, `jvp` and `vmap`, and finite differences to check them."""
