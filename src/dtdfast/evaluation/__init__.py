"""Maps put to the test: what they call relevant is taken away, and the output is watched.

`operators` say what replaces a region, `perturbation` in which order, `curves` what the result says; `comparison` sets
several methods side by side.
"""

from .comparison import Comparison, compare
from .curves import Curves, Estimate
from .perturbation import pixel_flipping, region_perturbation

__all__ = ["Comparison", "Curves", "Estimate", "compare", "pixel_flipping", "region_perturbation"]
