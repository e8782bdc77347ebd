"""Types, values, nodes, graphs and `bind`: everything that knows no particular primitive."""

from . import probe as probe
