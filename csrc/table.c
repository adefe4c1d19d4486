/* table.c: the table of kernels of one instruction set and type of numbers. */
#include "base/kernel.h"

extern const dtd_kernel_table UNIT(kernels);
void UNIT(neuron_dense)(const dtd_step *s, void *const *bases, int n_threads);
void UNIT(taps_dense)(const dtd_step *s, void *const *bases, int n_threads);
const char *UNIT(dense_body)(const dtd_step *s, void *const *bases, int choice);

const dtd_kernel_table UNIT(kernels) = {{
    [DTD_CLEAR_BORDER] = {NAME(clear_border), NULL},
    [DTD_MOVE] = {NAME(move), NULL},
    [DTD_CONVERT] = {NAME(convert), NULL},
    [DTD_MAP] = {NAME(map), NULL},
    [DTD_NEURON_DENSE] = {UNIT(neuron_dense), UNIT(dense_body)},
    [DTD_NEURON_CHANNEL] = {NAME(neuron_channel), NULL},
    [DTD_NEURON_LINEAR] = {NAME(neuron_linear), NULL},
    [DTD_TAPS_DENSE] = {UNIT(taps_dense), UNIT(dense_body)},
    [DTD_TAPS_CHANNEL] = {NAME(taps_channel), NULL},
    [DTD_TAPS_LINEAR] = {NAME(taps_linear), NULL},
    [DTD_SCATTER_LINEAR] = {NAME(scatter_linear), NAME(scatter_body)},
    [DTD_FACTOR] = {NAME(factor), NULL},
    [DTD_MULTIPLY] = {NAME(multiply), NULL},
    [DTD_DIVIDE] = {NAME(divide), NULL},
    [DTD_ACTIVATE] = {NAME(activate), NULL},
    [DTD_AFFINE] = {NAME(affine), NULL},
    [DTD_LRN] = {NAME(lrn), NULL},
    [DTD_SOFTMAX] = {NAME(softmax), NULL},
    [DTD_LOG_SOFTMAX] = {NAME(log_softmax), NULL},
    [DTD_MAX_POOL] = {NAME(max_pool), NULL},
    [DTD_MAX_UNPOOL] = {NAME(max_unpool), NULL},
    [DTD_MAX_SCATTER] = {NAME(max_scatter), NULL},
    [DTD_EMBED] = {NAME(embed), NULL},
    [DTD_EMBED_SUM] = {NAME(embed_sum), NULL},
}};
