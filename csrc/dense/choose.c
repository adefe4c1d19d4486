/* choose.c: which body computes a dense step: the first row of one table that suits it. */
#include "dense.h"

#include "base/simd.h"

static const struct {
    const char *name;
    int (*suits)(const dense_job *job); /* by the shape alone; NULL: every step */
    int (*pays)(const dense_job *job);  /* by the zeros of x; NULL: always */
    void (*run)(dense_job *job, int n_threads);
} BODIES[] = {
    {"inner_product", NAME(inner_product_suits), NULL, NAME(inner_product)},
    {"sparse_scatter", NAME(sparse_scatter_suits), NAME(sparse_scatter_pays), NAME(sparse_scatter)},
    {"channels_first", NAME(channels_first_suits), NULL, NAME(channels_first)},
    {"sparse_gather", NAME(sparse_gather_suits), NAME(sparse_gather_pays), NAME(sparse_gather)},
    {"direct", NULL, NULL, NAME(direct)},
};

dense_job NAME(dense_job)(const dtd_step *s, void *const *bases, int neuron)
{
    dense_job job = {.s = *s,
                     .step = s,
                     .bases = bases,
                     .neuron = neuron,
                     .pair = neuron && present(&s->other),
                     .map = neuron ? (s->dual ? DUAL_MAP : DTD_W) : s->weight_map,
                     .c_in = s->x.shape[AXIS_C] / s->groups,
                     .c_out = s->out.shape[AXIS_C] / s->groups};
    job.block = s->n_taps * job.c_in * DTD_BLOCK;
    job.blocks = ceil_div(job.c_out, DTD_BLOCK);
    return job;
}

static void merge(dense_job *job)
{
    NAME(merge_pixels)(&job->s);
    job->rows = job->s.out.shape[AXIS_N] * job->s.out.shape[AXIS_D] * job->s.out.shape[AXIS_H];
}

static void dense(const dtd_step *s, void *const *bases, int n_threads, int neuron)
{
    dense_job job = NAME(dense_job)(s, bases, neuron);
    merge(&job);
    if (job.pair) {
        NAME(direct)(&job, n_threads);
        return;
    }
    for (int b = 0;; b++)
        if ((!BODIES[b].suits || BODIES[b].suits(&job)) && (!BODIES[b].pays || BODIES[b].pays(&job))) {
            BODIES[b].run(&job, n_threads);
            return;
        }
}

void NAME(neuron_dense)(const dtd_step *s, void *const *bases, int n_threads) { dense(s, bases, n_threads, 1); }
void NAME(taps_dense)(const dtd_step *s, void *const *bases, int n_threads) { dense(s, bases, n_threads, 0); }

const char *NAME(dense_body)(const dtd_step *s, void *const *bases, int choice)
{
    dense_job job = NAME(dense_job)(s, bases, s->op == DTD_NEURON_DENSE);
    if (job.pair)
        return choice <= DTD_BY_SHAPE ? "direct" : NULL;
    merge(&job);
    for (int b = 0, sparse = 0;; b++) {
        if (BODIES[b].suits && !BODIES[b].suits(&job))
            continue;
        if (!BODIES[b].pays)
            return choice <= DTD_BY_SHAPE ? BODIES[b].name : NULL;
        if (choice == DTD_BY_DATA ? BODIES[b].pays(&job) : ++sparse == choice)
            return BODIES[b].name;
    }
}
