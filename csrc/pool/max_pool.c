/* max_pool.c: max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins.
 *
 * A vector holds channels of one pixel, and takes all taps before the next channels.
 */
#include "pool.h"

#include <math.h>

/* best = max over the taps, winner = the first that attains it, of n <= VL channels */
ALWAYS_INLINE void max_of_taps(const tap_list *taps, const real *from, int64_t channel, int64_t n, const int dense,
                               vec *best, mask *winner)
{
    vec most = splat(-INFINITY);
    mask which = (mask){0} - 1;
    for (int32_t k = 0; k < taps->n; k++) {
        vec v = load_channels(from + taps->x[k], channel, n, dense);
        /* larger than the best so far, or the first NaN, or the first tap */
        mask wins = (mask)(v > most) | ((mask)(v != v) & (mask)(most == most)) | (which < 0);
        most = (vec)(((mask)v & wins) | ((mask)most & ~wins));
        which = ((bits)taps->number[k] & wins) | (which & ~wins);
    }
    *best = most;
    *winner = which;
}

#if defined(__AVX512F__)
/* The same for the first n channels of a wide pixel. */
static void max_of_wide_pixel(const tap_list *taps, const real *from, int64_t n, real *to, uint8_t *m)
{
    const uint64_t here = first_channels(n);
    MM_TYPE(__m512) best[WIDE_VECTORS];
    __m512i winner[WIDE_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < WIDE_VECTORS; v++) {
        best[v] = MM(_mm512_maskz_loadu)((MM_WIDE_MASK)(here >> v * VL), from + taps->x[0] + v * VL);
        winner[v] = MM_BITS(_mm512_set1_, )((bits)taps->number[0]);
    }
    for (int32_t k = 1; k < taps->n; k++) {
        const __m512i number = MM_BITS(_mm512_set1_, )((bits)taps->number[k]);
#pragma GCC unroll 4
        for (int v = 0; v < WIDE_VECTORS; v++) {
            const MM_TYPE(__m512) x =
                MM(_mm512_maskz_loadu)((MM_WIDE_MASK)(here >> v * VL), from + taps->x[k] + v * VL);
            MM_WIDE_MASK wins = MM_MASK(_mm512_cmp)(x, best[v], _CMP_NLE_UQ); /* larger, or the first NaN */
            wins &= MM_MASK(_mm512_cmp)(best[v], best[v], _CMP_ORD_Q);
            best[v] = MM(_mm512_mask_mov)(best[v], wins, x);
            winner[v] = MM_BITS(_mm512_mask_mov_, )(winner[v], wins, number);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < WIDE_VECTORS; v++) {
        const MM_WIDE_MASK some = (MM_WIDE_MASK)(here >> v * VL);
        MM(_mm512_mask_storeu)(to + v * VL, some, best[v]);
        if (m)
            MM_BITS(_mm512_mask_cvt, _storeu_epi8)(m + v * VL, some, winner[v]);
    }
}
#endif

/* out[p,c] = max_k x[p·x_step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it */
ALWAYS_INLINE void max_pool_rows(const pool_job *job, int64_t first, int64_t last, const int dense)
{
    const dtd_step *s = job->s;
    const int64_t channels = s->out.shape[AXIS_C], width = s->out.shape[AXIS_W];
    const int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], m_channel = s->m.stride[AXIS_C];
    const int64_t step = s->x_step[2];
    int64_t some_x[s->n_taps + 1], some_m[s->n_taps + 1], some_number[s->n_taps + 1];
    tap_list some = {0, some_x, some_m, some_number};
    void *m = present(&s->m) ? job->bases[s->m.base] : NULL;
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], q[6], inside, outside;
        locate_row(s, item, p);
        for (int a = 0; a <= AXIS_EXTRA; a++)
            q[a] = a == AXIS_D || a == AXIS_H ? p[a] * s->x_step[a - AXIS_D] : p[a];
        find_interior(job, q, step, &inside, &outside);
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, q);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        int64_t m_at = s->m.offset + offset_of(&s->m, p);
        for (int64_t w = 0; w < width; w++) {
            const tap_list *taps = &job->taps;
            q[AXIS_W] = w * step;
            if (w < inside || w >= outside) {
                pick_taps(job, q, &some);
                taps = &some;
            }
            int64_t c = 0;
#if defined(__AVX512F__)
            if (dense && s->winner_bytes == 1 && taps->n)
                for (; c < channels; c += WIDE_PIXEL)
                    max_of_wide_pixel(taps, from + c, min64(WIDE_PIXEL, channels - c), to + c,
                                      m ? (uint8_t *)m + m_at + c : NULL);
#endif
            for (; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                vec best;
                mask winner;
                max_of_taps(taps, from + c * x_channel, x_channel, n, dense, &best, &winner);
                store_channels(to + c * out_channel, out_channel, best, n, dense);
                if (m)
                    store_winners(m, s->winner_bytes, m_at + c * m_channel, m_channel, winner, n, dense);
            }
            from += step * s->x.stride[AXIS_W];
            to += s->out.stride[AXIS_W];
            m_at += s->m.stride[AXIS_W];
        }
    }
}

/* The same for one or two pixels where every tap lies within x, and their channels, all contiguous, fit a vector. */
ALWAYS_INLINE void max_pool_pixels(const pixel_row r, const real *from, real *to, int64_t m_at, const int pixels)
{
    vec best = load_pixels(from + r.taps[0], r.step, r.channels, pixels);
    mask winner = {0};
    for (int64_t k = 1; k < r.n_taps; k++) {
        const vec v = load_pixels(from + r.taps[k], r.step, r.channels, pixels);
        const mask wins = ~(mask)(v <= best) & (mask)(best == best); /* larger, or the first NaN */
        best = (vec)(((mask)v & wins) | ((mask)best & ~wins));
        winner = ((bits)k & wins) | (winner & ~wins);
    }
    store_some(to, best, pixels * r.channels);
    if (r.m)
        store_winners(r.m, 1, m_at, 1, winner, pixels * r.channels, 1);
}

static void run_max_pool_one_vector(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t width = s->out.shape[AXIS_W], pairs = in_pairs(s, &s->out) ? width / 2 : 0;
    const int64_t out = s->out.stride[AXIS_W], m = s->m.stride[AXIS_W];
    const pixel_row r = {.channels = s->out.shape[AXIS_C],
                         .step = s->x_step[2] * s->x.stride[AXIS_W],
                         .n_taps = s->n_taps,
                         .taps = job->taps.x,
                         .m = present(&s->m) ? job->bases[s->m.base] : NULL};
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], q[6];
        locate_row(s, item, p);
        for (int a = 0; a <= AXIS_EXTRA; a++)
            q[a] = a == AXIS_D || a == AXIS_H ? p[a] * s->x_step[a - AXIS_D] : p[a];
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, q);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        const int64_t m_at = s->m.offset + offset_of(&s->m, p);
        for (int64_t w = 0; w < 2 * pairs; w += 2)
            max_pool_pixels(r, from + w * r.step, to + w * out, m_at + w * m, 2);
        for (int64_t w = 2 * pairs; w < width; w++)
            max_pool_pixels(r, from + w * r.step, to + w * out, m_at + w * m, 1);
    }
}

static void run_max_pool_dense(void *job, int64_t first, int64_t last) { max_pool_rows(job, first, last, 1); }
static void run_max_pool_strided(void *job, int64_t first, int64_t last) { max_pool_rows(job, first, last, 0); }

/* ----------------------------------------------------------------------------------------------------------- driver */

static int contiguous(const dtd_view *v) { return !present(v) || v->stride[AXIS_C] == 1; }

void NAME(pool_rows)(const dtd_step *s, void *const *bases, int n_threads, int columns, dtd_task dense,
                     dtd_task strided)
{
    int64_t x[s->n_taps + 1], m[s->n_taps + 1], number[s->n_taps + 1];
    pool_job job = {s, bases, columns, {s->n_taps, x, m, number}, {{0}}};
    for (int32_t k = 0; k < s->n_taps; k++) {
        const int64_t *row = table(&s->taps, bases) + columns * k, *tap = row + columns - 3;
        x[k] = offset_of_tap(&s->x, tap);
        m[k] = offset_of_tap(&s->m, tap);
        number[k] = columns == 3 ? k : row[0];
        for (int a = 0; a < 3; a++) {
            job.reach[a][0] = k ? min64(job.reach[a][0], tap[a]) : tap[a];
            job.reach[a][1] = k ? max64(job.reach[a][1], tap[a]) : tap[a];
        }
    }
    const int64_t *shape = s->op == DTD_MAX_SCATTER ? s->x.shape : s->out.shape;
    int64_t work = max64(1, s->n_taps * shape[AXIS_W] * ceil_div(shape[AXIS_C], VL)); /* vectors of a row */
    int all = contiguous(&s->out) && contiguous(&s->x) && contiguous(&s->m) && contiguous(&s->factor);
    dtd_parallel(n_threads, shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H], ceil_div(1 << 11, work),
                 all ? dense : strided, &job);
}

/* Whether every tap of every window lies within x; taps are `columns` numbers each, the last three (d, h, w). */
static int all_within(const dtd_step *s, void *const *bases, int columns)
{
    for (int32_t k = 0; k < s->n_taps; k++)
        for (int a = 0; a < 3; a++) {
            const int64_t tap = table(&s->taps, bases)[columns * (k + 1) - 3 + a],
                          step = columns == 3 ? s->x_step[a] : 1;
            if (tap < 0 || tap + (s->out.shape[AXIS_D + a] - 1) * step >= s->x.shape[AXIS_D + a])
                return 0;
        }
    return 1;
}

int NAME(pool_fits_vector)(const dtd_step *s, void *const *bases, int columns)
{
    return s->n_taps && s->winner_bytes == 1 && s->out.shape[AXIS_C] <= VL && all_within(s, bases, columns);
}

void NAME(max_pool)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_task dense = NAME(pool_fits_vector)(s, bases, 3) ? run_max_pool_one_vector : run_max_pool_dense;
    NAME(pool_rows)(s, bases, n_threads, 3, dense, run_max_pool_strided);
}
