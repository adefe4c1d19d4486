/* scatter.h: the transposed product of a fully connected layer, as scatter.c and scatter_batch.c compute it.
 *
 *     sum[n,i] = sum_j wm(w[j,i]) x[n,j]
 *
 * Both compute each sum as one chain over j.
 */
#ifndef DTD_SCATTER_H
#define DTD_SCATTER_H

#include "base/epilogue.h"

enum {
    FEW_SAMPLES = 12
}; /* that scatter.c takes, in one pass over the weights; more are the scatter_batch of scatter_batch.c */

typedef struct {
    dtd_step s; /* with the samples as pixels of one row */
    void *const *bases;
    int64_t n_samples, n_in, n_out, chunks;
} scatter_job;

/* The whole step, of more samples. */
void NAME(scatter_batch)(scatter_job *job, int n_threads);

#endif
