"""Pictures of computational graphs, drawn as SVG without any other program.

gather (what there is) → tree (modules, lines, repeats) → compose (boxes and lines of what is open)
→ nested, layered (places) → svg (text). `picture` chooses how much of it one screen can show.
"""

from __future__ import annotations

from .picture import SCREENS, Picture, drawn, picture

__all__ = ["SCREENS", "Picture", "drawn", "picture"]
