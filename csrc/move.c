/* move.c: copies between layouts, frames of zeros. */
#include "nest.h"

#include <string.h>

void NAME(move)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x};
    NAME(nest)(s, bases, n_threads, NULL, operands, 1, 0);
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
        int64_t h = item % job->height - border[2], rest = item / job->height, d = rest % job->depth - border[0], n = rest / job->depth;
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
