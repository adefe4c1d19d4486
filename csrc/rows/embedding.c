/* embedding.c: the rows of an embedding, and sums of relevance over each row. */
#include "one_axis.h"

/* out[.., f] = weight[x[..], f] */
static void run_embed(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *ids = (const int64_t *)job->bases[s->x.base] + s->x.offset;
    int64_t features = s->out.shape[job->axis], to = s->out.stride[job->axis], p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, job->axis, p);
        const real *row = vector(&s->weight, job->bases) + ids[offset_of(&s->x, p)] * features;
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p);
        for (int64_t f = 0; f < features; f++)
            out[f * to] = row[f];
    }
}

void NAME(embed)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_embed);
}

/* out[..] (+)= sum_f x[.., f] m[.., f] */
static void run_embed_sum(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t features = s->x.shape[job->axis], x_feature = s->x.stride[job->axis], m_feature = s->m.stride[job->axis],
            p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->x.shape, job->axis, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p), *m = reals(&s->m, job->bases);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p), sum = 0;
        p[AXIS_N] = kept_sample(s, p[AXIS_N]);
        if (m)
            m += offset_of(&s->m, p);
        for (int64_t f = 0; f < features; f++)
            sum += m ? x[f * x_feature] * m[f * m_feature] : x[f * x_feature];
        *out = s->accumulate ? *out + sum : sum;
    }
}

void NAME(embed_sum)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->x.shape, s->axis, run_embed_sum);
}
