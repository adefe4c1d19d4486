/* one_axis.h: the loop over the lines of one axis, for steps that need a whole line at once. */
#ifndef DTD_ONE_AXIS_H
#define DTD_ONE_AXIS_H

#include "base/kernel.h"

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

#endif
