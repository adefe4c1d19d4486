/* pool.c: max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins. */
#include "rows.h"

#include <math.h>
#include <string.h>

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int64_t blocks; /* of DTD_ROW channels */
} pool_job;

/* Where an item lies: (n, d, h, w, block of channels). */
static int64_t locate_pixel(const pool_job *job, int64_t item, int64_t *index)
{
    const int64_t *shape = job->s->out.shape;
    int64_t c = item % job->blocks * DTD_ROW;
    unravel(item / job->blocks, shape, AXIS_C, index);
    index[AXIS_C] = c;
    return min64(DTD_ROW, shape[AXIS_C] - c);
}

static int within(const int64_t *index, const int64_t *shape)
{
    for (int a = AXIS_D; a <= AXIS_W; a++)
        if (index[a] < 0 || index[a] >= shape[a])
            return 0;
    return 1;
}

/* Winners of a row of channels, stored in 1 or 2 bytes. */
static void store_winners(void *m, int bytes, int64_t at, int64_t channel, const int32_t *winner, int64_t n)
{
    uint8_t *one = m;
    uint16_t *two = m;
    if (bytes == 1 && channel == 1)
        for (int64_t i = 0; i < n; i++)
            one[at + i] = (uint8_t)winner[i];
    else
        for (int64_t i = 0; i < n; i++) {
            if (bytes == 1)
                one[at + i * channel] = (uint8_t)winner[i];
            else
                two[at + i * channel] = (uint16_t)winner[i];
        }
}

static void load_winners(const void *m, int bytes, int64_t at, int64_t channel, int32_t *winner, int64_t n)
{
    const uint8_t *one = m;
    const uint16_t *two = m;
    if (bytes == 1 && channel == 1)
        for (int64_t i = 0; i < n; i++)
            winner[i] = one[at + i];
    else
        for (int64_t i = 0; i < n; i++)
            winner[i] = bytes == 1 ? one[at + i * channel] : two[at + i * channel];
}

/* ----------------------------------------------------------------------------------------------------------------- gather */

/* One tap of a row: where x is larger than the best so far (or the first tap, or the first NaN), tap k wins. */
ALWAYS_INLINE void take_tap(const real *x, int64_t channel, int64_t n, int32_t k, real *best, int32_t *winner)
{
    for (int64_t i = 0; i < n; i++) {
        real v = x[i * channel];
        int wins = (winner[i] < 0) | (v > best[i]) | ((v != v) & (best[i] == best[i]));
        best[i] = wins ? v : best[i];
        winner[i] = wins ? k : winner[i];
    }
}

/* out[p,c] = max_k x[p·x_step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it */
static void run_max_pool(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C];
    const real *x = reals(&s->x, job->bases);
    real *out = reals(&s->out, job->bases), best[DTD_ROW];
    int32_t winner[DTD_ROW];
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], q[6], n = locate_pixel(job, item, p);
        for (int64_t i = 0; i < n; i++) {
            best[i] = -INFINITY;
            winner[i] = -1;
        }
        for (int32_t k = 0; k < s->n_taps; k++) {
            q[AXIS_N] = p[AXIS_N], q[AXIS_C] = p[AXIS_C], q[AXIS_EXTRA] = 0;
            for (int a = 0; a < 3; a++)
                q[AXIS_D + a] = p[AXIS_D + a] * s->x_step[a] + taps[3 * k + a];
            if (!within(q, s->x.shape))
                continue;
            if (x_channel == 1)
                take_tap(x + offset_of(&s->x, q), 1, n, k, best, winner);
            else
                take_tap(x + offset_of(&s->x, q), x_channel, n, k, best, winner);
        }
        real *to = out + offset_of(&s->out, p);
        if (out_channel == 1)
            memcpy(to, best, (size_t)n * sizeof *to);
        else
            for (int64_t i = 0; i < n; i++)
                to[i * out_channel] = best[i];
        if (present(&s->m))
            store_winners(job->bases[s->m.base], s->mode, s->m.offset + offset_of(&s->m, p), s->m.stride[AXIS_C], winner, n);
    }
}

/* ---------------------------------------------------------------------------------------------------------------- scatter */

/* sum[i] += x[i] where tap k won */
ALWAYS_INLINE void give_tap(const real *x, int64_t channel, const int32_t *winner, int64_t n, int32_t k, real *sum)
{
    for (int64_t i = 0; i < n; i++) {
        real v = x[i * channel];
        sum[i] += winner[i] == k ? v : 0;
    }
}

/* out[p,c] (+)= factor[p,c] · sum of x[q,c] over the windows q = p + (d, h, w)_k within x whose winner is tap_k */
static void run_max_unpool(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), x_channel = s->x.stride[AXIS_C], channel = s->out.stride[AXIS_C];
    const real *x = reals(&s->x, job->bases), *factor = reals(&s->factor, job->bases);
    real *out = reals(&s->out, job->bases), sum[DTD_ROW];
    int32_t winner[DTD_ROW];
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], q[6], n = locate_pixel(job, item, p);
        for (int64_t i = 0; i < n; i++)
            sum[i] = 0;
        for (int32_t k = 0; k < s->n_taps; k++) {
            const int64_t *tap = taps + 4 * k;
            q[AXIS_N] = p[AXIS_N], q[AXIS_C] = p[AXIS_C], q[AXIS_EXTRA] = 0;
            for (int a = 0; a < 3; a++)
                q[AXIS_D + a] = p[AXIS_D + a] + tap[1 + a];
            if (!within(q, s->x.shape))
                continue;
            const real *row = x + offset_of(&s->x, q);
            q[AXIS_N] = kept_sample(s, q[AXIS_N]);
            load_winners(job->bases[s->m.base], s->mode, s->m.offset + offset_of(&s->m, q), s->m.stride[AXIS_C], winner, n);
            if (x_channel == 1)
                give_tap(row, 1, winner, n, (int32_t)tap[0], sum);
            else
                give_tap(row, x_channel, winner, n, (int32_t)tap[0], sum);
        }
        real *to = out + offset_of(&s->out, p);
        if (factor) {
            p[AXIS_N] = kept_sample(s, p[AXIS_N]);
            const real *by = factor + offset_of(&s->factor, p);
            for (int64_t i = 0; i < n; i++)
                sum[i] *= by[i * s->factor.stride[AXIS_C]];
        }
        if (channel == 1 && !s->accumulate)
            memcpy(to, sum, (size_t)n * sizeof *to);
        else
            for (int64_t i = 0; i < n; i++)
                to[i * channel] = s->accumulate ? to[i * channel] + sum[i] : sum[i];
    }
}

static void pool(const dtd_step *s, void *const *bases, int n_threads, dtd_task task)
{
    pool_job job = {s, bases, ceil_div(s->out.shape[AXIS_C], DTD_ROW)};
    int64_t items = count_without(s->out.shape, AXIS_C) * job.blocks;
    int64_t work = max64(1, s->n_taps * min64(DTD_ROW, s->out.shape[AXIS_C])); /* comparisons of an item */
    dtd_parallel(n_threads, items, ceil_div(1 << 14, work), task, &job);
}

void NAME(max_pool)(const dtd_step *s, void *const *bases, int n_threads) { pool(s, bases, n_threads, run_max_pool); }
void NAME(max_unpool)(const dtd_step *s, void *const *bases, int n_threads) { pool(s, bases, n_threads, run_max_unpool); }
