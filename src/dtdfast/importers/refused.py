"""Why whole kinds of networks are refused, and what would be possible instead: the same words in every importer."""

ATTENTION = (
    "attention multiplies what is computed by what is computed, in a form that is not read; explain the part before or "
    "after it as a network of its own"
)
PAIRS = (
    "it multiplies one computed operand by another, element by pair of elements; write it as matmul or einsum, which "
    "become a MatMul"
)
WORDS = (
    "it computes with the words themselves, which only an Embedding reads; put the network into a module that takes "
    "the words alone and calls it with masks and positions that are constants"
)
RECURRENCE = "recurrence has no record; use convolutions over time, or explain what follows it as a network of its own"
STATISTICS = (
    "it divides by statistics of the very sample, in a form that is not read; use batch normalisation, which folds "
    "exactly, or explain the part after it as a network of its own"
)
CONTROL_FLOW = "control flow has no record; make the branch to be explained a network of its own"
QUANTISED = "quantised operations have no record; import the float model that it was made from"
SIZE_OR_SIGN = (
    "what only knows the size or the sign of a number has no rule for its relevance; use a ReLU of x and one of −x "
    "instead"
)
CHOICE = (
    "it makes a choice by the data, which has no relevance rule; write relu, clamp, maximum or max-pooling, or "
    "explain what comes before it"
)
ORDER = (
    "it orders elements by their size, and only the largest (max, max-pooling) has a rule; explain the part before it"
)
STATISTIC = (
    "a statistic of the very sample has no rule known to be sound; explain the part before or after it as a network "
    "of its own"
)
FILLS = (
    "it fills in infinity or NaN, and something else than a softmax reads that; explain the part before or after it as "
    "a network of its own"
)
