/* sliced.c: steps that run one behind another on slices of their views, so that what stands between them stays small.
 *
 * A slice is one sample (with its targets), one c, one d and one block of the axis that out is cut along.  Every view
 * has as many samples, c and d as out (with stride 0 where they share them), or a multiple of the samples: its targets.
 * A view that is not cut is read whole along h and w.  Views whose base is `local` lie in memory of each thread, where
 * every slice begins anew.
 *
 * Of a block, a view with a `span` has a range along that axis, from and to, which `taps` holds block by block: what a
 * mask leaves of scores, and of what meets them.
 */
#include "base/kernel.h"

extern const dtd_kernel_table NAME(kernels);

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int64_t blocks;
} sliced_job;

/* What a slice sees of a view; p: its sample, c, d and block; range: that of the block, or NULL. */
static void cut_view(const dtd_step *s, dtd_view *v, const int64_t *p, const int64_t *range)
{
    const int64_t samples = v->shape[AXIS_N] / s->out.shape[AXIS_N], from = p[3] * s->block;
    const int inside = v->base == s->local.base;
    if (!inside)
        v->offset += p[AXIS_N] * samples * v->stride[AXIS_N] + p[AXIS_C] * v->stride[AXIS_C] +
                     p[AXIS_D] * v->stride[AXIS_D] + (v->cut ? from * v->stride[v->cut] : 0) +
                     (range && v->span ? range[0] * v->stride[v->span] : 0);
    else
        v->offset += dtd_thread() * s->local.offset;
    v->shape[AXIS_N] = samples;
    v->shape[AXIS_C] = v->shape[AXIS_D] = 1;
    if (v->cut)
        v->shape[v->cut] = min64(s->block, v->shape[v->cut] - from);
    if (range && v->span)
        v->shape[v->span] = range[1] - range[0];
}

/* Items are slices. */
static void run_slices(void *context, int64_t first, int64_t last)
{
    const sliced_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *ranges = table(&s->taps, job->bases);
    for (int64_t item = first; item < last; item++) {
        const int64_t *shape = s->out.shape, line = item / job->blocks, c_d = shape[AXIS_C] * shape[AXIS_D];
        const int64_t p[] = {line / c_d, line % c_d / shape[AXIS_D], line % shape[AXIS_D], item % job->blocks};
        for (int k = 1; k <= s->n_steps; k++) {
            dtd_step slice = s[k];
            dtd_view *const views[] = {DTD_VIEWS(&slice)};
            for (size_t i = 0; i < sizeof views / sizeof *views; i++)
                if (present(views[i]))
                    cut_view(s, views[i], p, ranges ? ranges + 2 * p[3] : NULL);
            NAME(kernels).of[slice.op].run(&slice, job->bases, 1);
        }
    }
}

void NAME(sliced)(const dtd_step *s, void *const *bases, int n_threads)
{
    const int64_t *shape = s->out.shape;
    const sliced_job job = {s, bases, s->out.cut ? ceil_div(shape[s->out.cut], s->block) : 1};
    const int64_t items = shape[AXIS_N] * shape[AXIS_C] * shape[AXIS_D] * job.blocks;
    dtd_parallel(n_threads, items, 1, run_slices, (void *)&job);
}
