"""Drop-in replacements: the calls of captum, zennit, Quantus, iNNvestigate and LXT, answered by dtdfast's kernels.

None of these tools needs to be installed, and nothing here imports one. docs/drop-in.md says where the answers differ,
and why.
"""

from . import captum, innvestigate, lxt, quantus, zennit

__all__ = ["captum", "innvestigate", "lxt", "quantus", "zennit"]
