/* table.c: the table of kernels of one instruction set and type of numbers. */
#include "base/kernel.h"

extern const dtd_kernel_table UNIT(kernels);
void UNIT(neuron_dense)(const dtd_step *s, void *const *bases, int n_threads);
void UNIT(taps_dense)(const dtd_step *s, void *const *bases, int n_threads);
const char *UNIT(dense_body)(const dtd_step *s, void *const *bases, int choice);

#define KERNEL(op, of, kernel, body, needs, takes) [DTD_##op] = {of(kernel), body},
const dtd_kernel_table UNIT(kernels) = {{OPERATIONS(KERNEL)}};
