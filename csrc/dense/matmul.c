/* matmul.c: products of two computed matrices, one per (n, c, d).
 *
 *     out[i,j] (+)= coefficient · multiplier(m[i,j]) · sum_k x[i,k] · other[k,j]
 */
#include "base/epilogue.h"
#include "rows/rows.h"

typedef struct {
    const dtd_step *s;
    void *const *bases;
} matmul_job;

static const real *matrix_of(const matmul_job *job, const dtd_view *v, const int64_t *p)
{
    const real *start = reals(v, job->bases);
    return start ? start + offset_of(v, p) + (sample_of(job->s, v, p[AXIS_N]) - p[AXIS_N]) * v->stride[AXIS_N] : NULL;
}

/* Items are rows. */
static void run_matmul(void *context, int64_t first, int64_t last)
{
    const matmul_job *job = context;
    const dtd_step *s = job->s;
    const int64_t columns = s->out.shape[AXIS_W], terms = s->x.shape[AXIS_W];
    const int64_t *x_stride = s->x.stride, *other_stride = s->other.stride;
    int64_t p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, AXIS_W, p);
        const int64_t row = p[AXIS_H];
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p);
        p[AXIS_H] = 0;
        const real *x = matrix_of(job, &s->x, p) + row * x_stride[AXIS_H], *right = matrix_of(job, &s->other, p),
                   *m = matrix_of(job, &s->m, p);
        for (int64_t j = 0; j < columns; j++) {
            real sum = 0;
            for (int64_t k = 0; k < terms; k++)
                sum += x[k * x_stride[AXIS_W]] * right[k * other_stride[AXIS_H] + j * other_stride[AXIS_W]];
            sum *= (real)s->coefficient;
            if (m)
                NAME(row_multiplier)(s->multiplier, m + row * s->m.stride[AXIS_H] + j * s->m.stride[AXIS_W], &sum, 1);
            real *to = out + j * s->out.stride[AXIS_W];
            *to = s->accumulate ? *to + sum : sum;
        }
    }
}

void NAME(matmul)(const dtd_step *s, void *const *bases, int n_threads)
{
    matmul_job job = {s, bases};
    dtd_parallel(n_threads, count_without(s->out.shape, AXIS_W), 1, run_matmul, &job);
}
