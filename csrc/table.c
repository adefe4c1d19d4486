/* table.c: the table of kernels of one instruction set and type of numbers. */
#include "base/kernel.h"

extern const dtd_kernel_table UNIT(kernels);
void UNIT(neuron_dense)(const dtd_step *s, void *const *bases, int n_threads);
void UNIT(taps_dense)(const dtd_step *s, void *const *bases, int n_threads);

const dtd_kernel_table UNIT(kernels) = {{
    [DTD_CLEAR_BORDER] = NAME(clear_border),
    [DTD_MOVE] = NAME(move),
    [DTD_CONVERT] = NAME(convert),
    [DTD_MAP] = NAME(map),
    [DTD_NEURON_DENSE] = UNIT(neuron_dense),
    [DTD_NEURON_CHANNEL] = NAME(neuron_channel),
    [DTD_NEURON_LINEAR] = NAME(neuron_linear),
    [DTD_TAPS_DENSE] = UNIT(taps_dense),
    [DTD_TAPS_CHANNEL] = NAME(taps_channel),
    [DTD_TAPS_LINEAR] = NAME(taps_linear),
    [DTD_SCATTER_LINEAR] = NAME(scatter_linear),
    [DTD_FACTOR] = NAME(factor),
    [DTD_MULTIPLY] = NAME(multiply),
    [DTD_DIVIDE] = NAME(divide),
    [DTD_ACTIVATE] = NAME(activate),
    [DTD_AFFINE] = NAME(affine),
    [DTD_LRN] = NAME(lrn),
    [DTD_SOFTMAX] = NAME(softmax),
    [DTD_LOG_SOFTMAX] = NAME(log_softmax),
    [DTD_MAX_POOL] = NAME(max_pool),
    [DTD_MAX_UNPOOL] = NAME(max_unpool),
    [DTD_MAX_SCATTER] = NAME(max_scatter),
    [DTD_EMBED] = NAME(embed),
    [DTD_EMBED_SUM] = NAME(embed_sum),
}};
