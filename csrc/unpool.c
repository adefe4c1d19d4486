/* unpool.c: relevance back through max-pools: to the tap that won each window.
 *
 * Vectors run along the channels of one pixel, over all of its windows before the next channels.
 */
#include "pool.h"

#if defined(__AVX512F__)
/* out (+)= factor · sum of x over the windows that the first n channels of a wide pixel won */
static void unpool_wide_pixel(const tap_list *taps, const real *from, const uint8_t *m, const real *by, int accumulate, int64_t n, real *to)
{
    const uint64_t here = first_channels(n);
    MM_TYPE(__m512) sum[WIDE_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < WIDE_VECTORS; v++)
        sum[v] = MM(_mm512_setzero)();
    for (int32_t k = 0; k < taps->n; k++) {
        const __m512i winners = _mm512_maskz_loadu_epi8(here, m + taps->m[k]);
        const uint64_t won = _mm512_mask_cmpeq_epi8_mask(here, winners, _mm512_set1_epi8((char)taps->number[k]));
#pragma GCC unroll 4
        for (int v = 0; v < WIDE_VECTORS; v++) {
            const MM_WIDE_MASK wins = (MM_WIDE_MASK)(won >> v * VL);
            sum[v] = MM(_mm512_mask_add)(sum[v], wins, sum[v], MM(_mm512_maskz_loadu)(wins, from + taps->x[k] + v * VL));
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < WIDE_VECTORS; v++) {
        const MM_WIDE_MASK some = (MM_WIDE_MASK)(here >> v * VL);
        if (by)
            sum[v] = MM(_mm512_mul)(sum[v], MM(_mm512_maskz_loadu)(some, by + v * VL));
        if (accumulate)
            sum[v] = MM(_mm512_add)(MM(_mm512_maskz_loadu)(some, to + v * VL), sum[v]);
        MM(_mm512_mask_storeu)(to + v * VL, some, sum[v]);
    }
}
#endif

/* out[p,c] (+)= factor[p,c] · sum of x[q,c] over the windows q = p + (d, h, w)_k within x whose winner is tap_k */
ALWAYS_INLINE void max_unpool_rows(const pool_job *job, int64_t first, int64_t last, const int dense)
{
    const dtd_step *s = job->s;
    const int64_t channels = s->out.shape[AXIS_C], width = s->out.shape[AXIS_W];
    const int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], m_channel = s->m.stride[AXIS_C];
    const int64_t factor_channel = s->factor.stride[AXIS_C];
    int64_t some_x[s->n_taps + 1], some_m[s->n_taps + 1], some_number[s->n_taps + 1];
    tap_list some = {0, some_x, some_m, some_number};
    const void *m = job->bases[s->m.base];
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], inside, outside;
        locate_row(s, item, p);
        find_interior(job, p, 1, &inside, &outside);
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, p), *factor = reals(&s->factor, job->bases);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        p[AXIS_N] = kept_sample(s, p[AXIS_N]);
        int64_t m_at = s->m.offset + offset_of(&s->m, p);
        factor = factor ? factor + offset_of(&s->factor, p) : NULL;
        for (int64_t w = 0; w < width; w++) {
            const tap_list *taps = &job->taps;
            const real *by = factor ? factor + w * s->factor.stride[AXIS_W] : NULL;
            p[AXIS_W] = w;
            if (w < inside || w >= outside) {
                pick_taps(job, p, &some);
                taps = &some;
            }
            int64_t c = 0;
#if defined(__AVX512F__)
            if (dense && s->mode == 1)
                for (; c < channels; c += WIDE_PIXEL)
                    unpool_wide_pixel(taps, from + c, (const uint8_t *)m + m_at + c, by ? by + c : NULL, s->accumulate,
                                      min64(WIDE_PIXEL, channels - c), to + c);
#endif
            for (; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                vec sum = {0};
                for (int32_t k = 0; k < taps->n; k++) {
                    vec v = load_channels(from + taps->x[k] + c * x_channel, x_channel, n, dense);
                    mask winner = load_winners(m, s->mode, m_at + taps->m[k] + c * m_channel, m_channel, n, dense);
                    sum += (vec)((mask)v & (mask)(winner == (bits)taps->number[k]));
                }
                if (by)
                    sum *= load_channels(by + c * factor_channel, factor_channel, n, dense);
                if (s->accumulate)
                    sum = load_channels(to + c * out_channel, out_channel, n, dense) + sum;
                store_channels(to + c * out_channel, out_channel, sum, n, dense);
            }
            from += s->x.stride[AXIS_W];
            to += s->out.stride[AXIS_W];
            m_at += s->m.stride[AXIS_W];
        }
    }
}

/* The same for one or two pixels where every result has one window within x, and their channels, all contiguous, fit a vector. */
ALWAYS_INLINE void max_unpool_pixels(const pixel_row r, const real *from, const real *by, real *to, int64_t m_at, const int pixels)
{
    const mask winner = load_winners(r.m, 1, m_at, 1, pixels * r.channels, 1);
    vec sum = (vec)((mask)load_some(from, pixels * r.channels) & (mask)(winner == r.tap)) + splat(0);
    if (by)
        sum *= load_pixels(by, r.factor_step, r.channels, pixels);
    store_pixels(to, r.step, sum, r.channels, pixels);
}

static void run_max_unpool_alone(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t width = s->out.shape[AXIS_W], pairs = in_pairs(s, &s->x) ? width / 2 : 0;
    const int64_t x = s->x.stride[AXIS_W], m = s->m.stride[AXIS_W];
    const pixel_row r = {.channels = s->out.shape[AXIS_C],
                         .step = s->out.stride[AXIS_W],
                         .factor_step = s->factor.stride[AXIS_W],
                         .tap = (bits)job->taps.number[0],
                         .m = job->bases[s->m.base]};
    for (int64_t item = first; item < last; item++) {
        int64_t p[6];
        locate_row(s, item, p);
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, p) + job->taps.x[0], *by = reals(&s->factor, job->bases);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        p[AXIS_N] = kept_sample(s, p[AXIS_N]);
        const int64_t m_at = s->m.offset + offset_of(&s->m, p) + job->taps.m[0];
        by = by ? by + offset_of(&s->factor, p) : NULL;
        for (int64_t w = 0; w < 2 * pairs; w += 2)
            max_unpool_pixels(r, from + w * x, by ? by + w * r.factor_step : NULL, to + w * r.step, m_at + w * m, 2);
        for (int64_t w = 2 * pairs; w < width; w++)
            max_unpool_pixels(r, from + w * x, by ? by + w * r.factor_step : NULL, to + w * r.step, m_at + w * m, 1);
    }
}

static void run_max_unpool_dense(void *job, int64_t first, int64_t last) { max_unpool_rows(job, first, last, 1); }
static void run_max_unpool_strided(void *job, int64_t first, int64_t last) { max_unpool_rows(job, first, last, 0); }

void NAME(max_unpool)(const dtd_step *s, void *const *bases, int n_threads)
{
    const int alone = s->n_taps == 1 && !s->accumulate && NAME(pool_alone)(s, bases, 4);
    NAME(pool_rows)(s, bases, n_threads, 4, alone ? run_max_unpool_alone : run_max_unpool_dense, run_max_unpool_strided);
}
