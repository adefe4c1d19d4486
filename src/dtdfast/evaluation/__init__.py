"""Maps put to the test: what they call relevant is taken away, and the output is watched.

`operators` say what replaces a region, `perturbation` in which order, `curves` what the result says.
"""

from .curves import Curves, Estimate
from .perturbation import pixel_flipping, region_perturbation

__all__ = ["Curves", "Estimate", "pixel_flipping", "region_perturbation"]
