"""Instruments that show, for one's own network and inputs, whether a map means what its theory promises.

Each returns a small dataclass of arrays that prints as a table with one sentence of reading, and draws itself with
`.plot(ax)`.

| file | question |
|---|---|
| `regions` | how far around x is the network the function that is explained? |
| `roots`, `audit` | do the points at which a rule expands its neurons lie there? |
| `convergence`, `mixing` | does what enters above still matter below? |
| `sensitivity` | does the map depend on the class? |
| `randomization` | does it depend on the weights? |
| `gradients` | is it gradient × input by another name? |
| `conservation` | does it add up to the output? |
| `neurons` | which neurons, channels and branches does it pass through? |
"""

from .audit import RootAudit, root_audit
from .conservation import Conservation, conservation
from .convergence import Convergence, cosine_convergence
from .gradients import GradientEquivalence, gradient_equivalence
from .mixing import MixingBound, mixing_bound
from .neurons import Flow, TopNeurons, relevance_flow, top_neurons
from .randomization import Randomization, parameter_randomization
from .regions import region_reach, same_region
from .roots import RootPoints, root_points
from .sensitivity import ClassSensitivity, class_sensitivity

__all__ = [
    "ClassSensitivity", "Conservation", "Convergence", "Flow", "GradientEquivalence", "MixingBound", "Randomization",
    "RootAudit", "RootPoints", "TopNeurons",
    "class_sensitivity", "conservation", "cosine_convergence", "gradient_equivalence", "mixing_bound",
    "parameter_randomization",
    "region_reach", "relevance_flow", "root_audit", "root_points", "same_region", "top_neurons",
]  # fmt: skip
