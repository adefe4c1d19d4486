"""Relevance to look at: maps, bars, flows and curves on the caller's matplotlib axes, and words as coloured text.

Colours are symmetric about zero, and are told apart by colour-blind readers.
"""

from ..text import Words, words
from .charts import bars, curves, flow
from .maps import grid, heatmap, overlay, samples

__all__ = ["Words", "bars", "curves", "flow", "grid", "heatmap", "overlay", "samples", "words"]
