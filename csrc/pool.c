/* pool.c: max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins. */
#include "rows.h"

#include <math.h>

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

static void store_winner(void *m, int bytes, int64_t i, int32_t tap)
{
    if (bytes == 1)
        ((uint8_t *)m)[i] = (uint8_t)tap;
    else
        ((uint16_t *)m)[i] = (uint16_t)tap;
}

static int32_t load_winner(const void *m, int bytes, int64_t i) { return bytes == 1 ? ((const uint8_t *)m)[i] : ((const uint16_t *)m)[i]; }

/* ----------------------------------------------------------------------------------------------------------------- gather */

/* out[p,c] = max_k x[p·x_step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it */
static void run_max_pool(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), x_channel = s->x.stride[AXIS_C];
    const float *x = floats(&s->x, job->bases);
    float *out = floats(&s->out, job->bases), best[DTD_ROW];
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
            const float *row = x + offset_of(&s->x, q);
            for (int64_t i = 0; i < n; i++) {
                float v = row[i * x_channel];
                int wins = winner[i] < 0 || v > best[i] || (v != v && best[i] == best[i]);
                best[i] = wins ? v : best[i];
                winner[i] = wins ? k : winner[i];
            }
        }
        float *to = out + offset_of(&s->out, p);
        for (int64_t i = 0; i < n; i++)
            to[i * s->out.stride[AXIS_C]] = best[i];
        int64_t at = s->m.offset + offset_of(&s->m, p);
        for (int64_t i = 0; i < n && present(&s->m); i++)
            store_winner(job->bases[s->m.base], s->mode, at + i * s->m.stride[AXIS_C], winner[i]);
    }
}

/* ---------------------------------------------------------------------------------------------------------------- scatter */

/* out[p,c] (+)= sum of x[q,c] over the windows q = p + (d, h, w)_k within x whose winner is tap_k */
static void run_max_unpool(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), x_channel = s->x.stride[AXIS_C], m_channel = s->m.stride[AXIS_C];
    const float *x = floats(&s->x, job->bases);
    const void *m = job->bases[s->m.base];
    float *out = floats(&s->out, job->bases), sum[DTD_ROW];
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], q[6], n = locate_pixel(job, item, p), channel = s->out.stride[AXIS_C];
        for (int64_t i = 0; i < n; i++)
            sum[i] = 0;
        for (int32_t k = 0; k < s->n_taps; k++) {
            const int64_t *tap = taps + 4 * k;
            q[AXIS_N] = p[AXIS_N], q[AXIS_C] = p[AXIS_C], q[AXIS_EXTRA] = 0;
            for (int a = 0; a < 3; a++)
                q[AXIS_D + a] = p[AXIS_D + a] + tap[1 + a];
            if (!within(q, s->x.shape))
                continue;
            const float *row = x + offset_of(&s->x, q);
            q[AXIS_N] = kept_sample(s, q[AXIS_N]);
            int64_t won = s->m.offset + offset_of(&s->m, q);
            for (int64_t i = 0; i < n; i++)
                sum[i] += load_winner(m, s->mode, won + i * m_channel) == tap[0] ? row[i * x_channel] : 0;
        }
        float *to = out + offset_of(&s->out, p);
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
