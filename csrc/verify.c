/* verify.c: whether the kernels know all that a step asks for, and why not. */
#include "verify.h"

#include <stdio.h>

static const char *const NAMES[] = {
    [DTD_CLEAR_BORDER] = "CLEAR_BORDER",
    [DTD_MOVE] = "MOVE",
    [DTD_CONVERT] = "CONVERT",
    [DTD_MAP] = "MAP",
    [DTD_NEURON_DENSE] = "NEURON_DENSE",
    [DTD_NEURON_CHANNEL] = "NEURON_CHANNEL",
    [DTD_NEURON_LINEAR] = "NEURON_LINEAR",
    [DTD_TAPS_DENSE] = "TAPS_DENSE",
    [DTD_TAPS_CHANNEL] = "TAPS_CHANNEL",
    [DTD_TAPS_LINEAR] = "TAPS_LINEAR",
    [DTD_SCATTER_LINEAR] = "SCATTER_LINEAR",
    [DTD_FACTOR] = "FACTOR",
    [DTD_MULTIPLY] = "MULTIPLY",
    [DTD_DIVIDE] = "DIVIDE",
    [DTD_ACTIVATE] = "ACTIVATE",
    [DTD_AFFINE] = "AFFINE",
    [DTD_LRN] = "LRN",
    [DTD_SOFTMAX] = "SOFTMAX",
    [DTD_LOG_SOFTMAX] = "LOG_SOFTMAX",
    [DTD_MAX_POOL] = "MAX_POOL",
    [DTD_MAX_UNPOOL] = "MAX_UNPOOL",
    [DTD_MAX_SCATTER] = "MAX_SCATTER",
    [DTD_EMBED] = "EMBED",
    [DTD_EMBED_SUM] = "EMBED_SUM",
};

/* What `mode` says of an operation, and the number of its values. */
typedef struct {
    const char *what;
    int32_t count;
} mode_of_op;

static mode_of_op mode_of(dtd_op op)
{
    switch (op) {
    case DTD_CLEAR_BORDER:
    case DTD_MOVE:
    case DTD_CONVERT:
    case DTD_AFFINE:
    case DTD_LRN: return (mode_of_op){"mode", 1};
    case DTD_MAP: return (mode_of_op){"input map", DTD_N_INPUT_MAPS};
    case DTD_NEURON_DENSE:
    case DTD_NEURON_CHANNEL:
    case DTD_NEURON_LINEAR:
    case DTD_FACTOR: return (mode_of_op){"factor", DTD_N_FACTORS};
    case DTD_TAPS_DENSE:
    case DTD_TAPS_CHANNEL:
    case DTD_TAPS_LINEAR:
    case DTD_SCATTER_LINEAR:
    case DTD_MULTIPLY:
    case DTD_DIVIDE: return (mode_of_op){"multiplier", DTD_N_MULTIPLIERS};
    case DTD_ACTIVATE: return (mode_of_op){"factor", DTD_N_FACTORS};
    case DTD_SOFTMAX:
    case DTD_LOG_SOFTMAX:
    case DTD_EMBED:
    case DTD_EMBED_SUM: return (mode_of_op){"axis", 6};
    case DTD_MAX_POOL:
    case DTD_MAX_UNPOOL:
    case DTD_MAX_SCATTER: return (mode_of_op){"bytes of a winner", 3};
    case DTD_N_OPS: break;
    }
    return (mode_of_op){"mode", 0};
}

static _Thread_local char message[200];

static int known(const char *where, const char *what, int32_t value, int32_t count)
{
    if (value >= 0 && value < count)
        return 1;
    snprintf(message, sizeof message, "%s: unknown %s %d", where, what, value);
    return 0;
}

const char *dtd_refusal(const dtd_step *s, int bfloat16)
{
    if (!known("a step", "operation", s->op, DTD_N_OPS))
        return message;
    const char *name = NAMES[s->op];
    const mode_of_op mode = mode_of((dtd_op)s->op);
    if (!known(name, "precision", s->precision, DTD_N_PRECISIONS) || !known(name, mode.what, s->mode, mode.count) ||
        !known(name, "weight map", s->weight_map, DTD_N_WEIGHT_MAPS) ||
        !known(name, "activation", s->activation, DTD_N_ACTIVATIONS) ||
        !known(name, "select", s->select, DTD_N_SELECTS))
        return message;
    if (s->precision != DTD_FLOAT32 && !bfloat16)
        return "this instruction set has no bfloat16";
    if (s->groups < 1 || s->repeat < 1)
        return "groups and repeat are at least 1";
    return NULL;
}
