/* normalise.c: steps that divide by a sum over one axis: LRN, softmax and its logarithm. */
#include "one_axis.h"

#include <tgmath.h>

/* -------------------------------------------------------------------------------------------------------------- LRN */

/* out[c] = x[c] / (k + alpha · sum_j x[j]²)^beta over the channels j = c - (size-1)/2 .. c + size/2 */
static void run_lrn(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t channels = s->out.shape[AXIS_C], before = (s->lrn_size - 1) / 2, after = s->lrn_size / 2;
    int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], p[6];
    const real k = s->lrn_k, alpha = s->lrn_alpha, beta = s->lrn_beta;
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
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_softmax);
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
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_log_softmax);
}
