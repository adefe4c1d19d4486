/* move.c: copies between layouts and types, and frames of zeros. */
#include "strided.h"

#include <string.h>

void NAME(move)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x};
    NAME(strided)(s, bases, n_threads, NULL, operands, 1, 0);
}

typedef struct {
    const dtd_step *s;
    real *out;
    const other *x;
} convert_job;

/* Items are rows: (n, d, h). */
static void run_convert(void *context, int64_t first, int64_t last)
{
    const convert_job *job = context;
    const dtd_view *o = &job->s->out, *x = &job->s->x;
    for (int64_t item = first; item < last; item++) {
        int64_t h = item % o->shape[AXIS_H], rest = item / o->shape[AXIS_H], d = rest % o->shape[AXIS_D],
                n = rest / o->shape[AXIS_D];
        real *to = job->out + n * o->stride[AXIS_N] + d * o->stride[AXIS_D] + h * o->stride[AXIS_H];
        const other *from = job->x + n * x->stride[AXIS_N] + d * x->stride[AXIS_D] + h * x->stride[AXIS_H];
        for (int64_t w = 0; w < o->shape[AXIS_W]; w++)
            for (int64_t e = 0; e < o->shape[AXIS_EXTRA]; e++) {
                real *a = to + w * o->stride[AXIS_W] + e * o->stride[AXIS_EXTRA];
                const other *b = from + w * x->stride[AXIS_W] + e * x->stride[AXIS_EXTRA];
                int64_t channels = o->shape[AXIS_C], ca = o->stride[AXIS_C], cb = x->stride[AXIS_C];
                if (ca == 1 && cb == 1)
                    for (int64_t c = 0; c < channels; c++)
                        a[c] = (real)b[c];
                else
                    for (int64_t c = 0; c < channels; c++)
                        a[c * ca] = (real)b[c * cb];
            }
    }
}

void NAME(convert)(const dtd_step *s, void *const *bases, int n_threads)
{
    convert_job job = {s, reals(&s->out, bases), (const other *)bases[s->x.base] + s->x.offset};
    const int64_t *shape = s->out.shape;
    const int64_t row = max64(1, shape[AXIS_C] * shape[AXIS_W] * shape[AXIS_EXTRA]);
    dtd_parallel(n_threads, shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H], ceil_div(1 << 14, row), run_convert, &job);
}

typedef struct {
    const dtd_step *s;
    real *out;
    int64_t depth, height; /* rows of the frame and what it surrounds */
} border_job;

/* Zero pixels first .. last-1 of a row. */
static void clear_pixels(const dtd_view *v, real *row, int64_t first, int64_t last)
{
    int64_t channels = v->shape[AXIS_C], pixel = v->stride[AXIS_W], channel = v->stride[AXIS_C];
    if (channel == 1 && pixel == channels) {
        memset(row + first * pixel, 0, (size_t)((last - first) * channels) * sizeof *row);
        return;
    }
    for (int64_t w = first; w < last; w++)
        for (int64_t c = 0; c < channels; c++)
            row[w * pixel + c * channel] = 0;
}

static void run_clear_border(void *context, int64_t first, int64_t last)
{
    const border_job *job = context;
    const dtd_view *v = &job->s->out;
    const int32_t *border = job->s->border; /* before and after, for d, h, w */
    int64_t depth = v->shape[AXIS_D], height = v->shape[AXIS_H], width = v->shape[AXIS_W];
    for (int64_t item = first; item < last; item++) {
        int64_t h = item % job->height - border[2], rest = item / job->height, d = rest % job->depth - border[0],
                n = rest / job->depth;
        real *row = job->out + n * v->stride[AXIS_N] + d * v->stride[AXIS_D] + h * v->stride[AXIS_H];
        if (d < 0 || d >= depth || h < 0 || h >= height)
            clear_pixels(v, row, -border[4], width + border[5]);
        else {
            clear_pixels(v, row, -border[4], 0);
            clear_pixels(v, row, width, width + border[5]);
        }
    }
}

void NAME(clear_border)(const dtd_step *s, void *const *bases, int n_threads)
{
    border_job job = {s, reals(&s->out, bases), s->out.shape[AXIS_D] + s->border[0] + s->border[1],
                      s->out.shape[AXIS_H] + s->border[2] + s->border[3]};
    dtd_parallel(n_threads, s->out.shape[AXIS_N] * job.depth * job.height, 64, run_clear_border, &job);
}
