/* along.c: steps that work along one axis: LRN, softmax and its logarithm, embeddings.  One item is one line of that
 * axis. */
#include "kernel.h"

#include <tgmath.h>

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int axis;
} line_job;

static void each_line(const dtd_step *s, void *const *bases, int n_threads, const int64_t *shape, int axis,
                      dtd_task task)
{
    line_job job = {s, bases, axis};
    dtd_parallel(n_threads, count_without(shape, axis), ceil_div(1 << 12, max64(1, shape[axis])), task, &job);
}

/* -------------------------------------------------------------------------------------------------------------- LRN */

/* out[c] = x[c] / (k + alpha/size · sum_j x[j]²)^beta over the channels j = c - (size-1)/2 .. c + size/2 */
static void run_lrn(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t channels = s->out.shape[AXIS_C], before = (s->n_taps - 1) / 2, after = s->n_taps / 2;
    int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], p[6];
    const real k = s->stabilizer, alpha = s->act_alpha, beta = s->act_beta;
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, AXIS_C, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p);
        for (int64_t c = 0; c < channels; c++) {
            real squares = 0;
            for (int64_t j = max64(0, c - before); j <= min64(channels - 1, c + after); j++)
                squares += x[j * x_channel] * x[j * x_channel];
            out[c * out_channel] = x[c * x_channel] / pow(k + alpha * squares, beta);
        }
    }
}

void NAME(lrn)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, run_lrn);
}

/* ---------------------------------------------------------------------------------------------------------- softmax */

/* out[i] = exp(x[i] - max x) / sum_j exp(x[j] - max x) */
static void run_softmax(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t n = s->out.shape[job->axis], from = s->x.stride[job->axis], to = s->out.stride[job->axis], p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, job->axis, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p), largest = x[0], sum = 0;
        for (int64_t i = 1; i < n; i++)
            largest = x[i * from] > largest ? x[i * from] : largest;
        for (int64_t i = 0; i < n; i++)
            sum += out[i * to] = exp(x[i * from] - largest);
        for (int64_t i = 0; i < n; i++)
            out[i * to] /= sum;
    }
}

void NAME(softmax)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->mode, run_softmax);
}

/* out[i] = x[i] - max x - log sum_j exp(x[j] - max x) */
static void run_log_softmax(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t n = s->out.shape[job->axis], from = s->x.stride[job->axis], to = s->out.stride[job->axis], p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, job->axis, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p), largest = x[0], sum = 0;
        for (int64_t i = 1; i < n; i++)
            largest = x[i * from] > largest ? x[i * from] : largest;
        for (int64_t i = 0; i < n; i++)
            sum += exp(x[i * from] - largest);
        sum = log(sum);
        for (int64_t i = 0; i < n; i++)
            out[i * to] = x[i * from] - largest - sum;
    }
}

void NAME(log_softmax)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->mode, run_log_softmax);
}

/* ------------------------------------------------------------------------------------------------------- embeddings */

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
    each_line(s, bases, n_threads, s->out.shape, s->mode, run_embed);
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
    each_line(s, bases, n_threads, s->x.shape, s->mode, run_embed_sum);
}
