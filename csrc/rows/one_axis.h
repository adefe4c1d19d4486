/* one_axis.h: the loop over the lines of one axis, for steps that need a whole line at once. */
#ifndef DTD_ONE_AXIS_H
#define DTD_ONE_AXIS_H

#include "base/wide.h"
#include "rows.h"

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int axis;
} line_job;

/* Run `task` over the lines of `axis`: its items are the elements along all other axes. */
ALWAYS_INLINE void each_line(const dtd_step *s, void *const *bases, int n_threads, const int64_t *shape, int axis,
                             dtd_task task)
{
    line_job job = {s, bases, axis};
    dtd_parallel(n_threads, count_without(shape, axis), ceil_div(1 << 12, max64(1, shape[axis])), task, &job);
}

/* The index of the next line. */
ALWAYS_INLINE void next_line(const int64_t *shape, int axis, int64_t *p)
{
    for (int a = AXIS_EXTRA; a >= 0; a--) {
        if (a != axis && ++p[a] < shape[a])
            return;
        p[a] = 0;
    }
}

/* A view's elements along the axis; at is NULL where the view is absent. */
typedef struct {
    real *at;
    int64_t step;
} dtd_line;

/* The line through p, an index of out; targets of a sample may share it. */
ALWAYS_INLINE dtd_line line_of(const line_job *job, const dtd_view *v, const int64_t *p)
{
    dtd_line line = {reals(v, job->bases), v->stride[job->axis]};
    const int64_t sample = job->s->repeat > 1 ? sample_of(job->s, v, p[AXIS_N]) : p[AXIS_N];
    if (line.at)
        line.at += offset_of(v, p) + (sample - p[AXIS_N]) * v->stride[AXIS_N];
    return line;
}

/* Elements first .. first+n-1 side by side, n <= DTD_ROW: in place, or gathered into `row`; NULL where absent. */
ALWAYS_INLINE const real *piece_of(dtd_line line, int64_t first, int64_t n, real *row)
{
    if (!line.at)
        return NULL;
    const real *from = line.at + first * line.step;
    if (line.step == 1)
        return from;
    for (int64_t i = 0; i < n; i++)
        row[i] = from[i * line.step];
    return row;
}

/* line[first + i] (+)= row[i] */
ALWAYS_INLINE void put_piece(dtd_line line, int64_t first, const real *row, int64_t n, int accumulate)
{
    real *to = line.at + first * line.step;
    if (line.step == 1 && accumulate)
        for (int64_t i = 0; i < n; i++)
            to[i] += row[i];
    else if (line.step == 1)
        memcpy(to, row, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++)
            to[i * line.step] = accumulate ? to[i * line.step] + row[i] : row[i];
}

/* The pieces of a line of n elements. */
#define EACH_PIECE(first, length, n)                                                                                   \
    for (int64_t first = 0, length; length = min64(DTD_ROW, (n) - first), first < (n); first += DTD_ROW)

/* The sum of a row, in an order that n alone decides. */
ALWAYS_INLINE double sum_of(const double *terms, int64_t n)
{
    enum { CHAINS = 4 };
    wide sum[CHAINS] = {{0}};
    int64_t i = 0;
    for (; i + CHAINS * WIDE_LANES <= n; i += CHAINS * WIDE_LANES)
        for (int k = 0; k < CHAINS; k++)
            sum[k] += *(const wide *)(terms + i + k * WIDE_LANES);
    for (; i + WIDE_LANES <= n; i += WIDE_LANES)
        sum[0] += *(const wide *)(terms + i);
    const wide lanes = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double total = 0;
    for (int l = 0; l < WIDE_LANES; l++)
        total += lanes[l];
    for (; i < n; i++)
        total += terms[i];
    return total;
}

#endif
