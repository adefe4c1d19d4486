/* max_unpool.c: relevance back through max-pools, to the tap that won each window.
 *
 * A vector holds channels of one pixel, and takes all of its windows before the next channels.
 */
#include "pool.h"

#if defined(__AVX512F__)
/* out (+)= factor · sum of x over the windows that the first n channels of a wide pixel won */
static void unpool_wide_pixel(const tap_list *taps, const real *from, const uint8_t *m, const real *by, int accumulate,
                              int64_t n, real *to)
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
            sum[v] =
                MM(_mm512_mask_add)(sum[v], wins, sum[v], MM(_mm512_maskz_loadu)(wins, from + taps->x[k] + v * VL));
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
            if (dense && s->winner_bytes == 1)
                for (; c < channels; c += WIDE_PIXEL)
                    unpool_wide_pixel(taps, from + c, (const uint8_t *)m + m_at + c, by ? by + c : NULL, s->accumulate,
                                      min64(WIDE_PIXEL, channels - c), to + c);
#endif
            for (; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                vec sum = {0};
                for (int32_t k = 0; k < taps->n; k++) {
                    vec v = load_channels(from + taps->x[k] + c * x_channel, x_channel, n, dense);
                    mask winner =
                        load_winners(m, s->winner_bytes, m_at + taps->m[k] + c * m_channel, m_channel, n, dense);
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

/* The same for one or two pixels where every result has one window within x, and their channels, all contiguous, fit a
 * vector. */
ALWAYS_INLINE void max_unpool_pixels(const pixel_row r, const real *from, const real *by, real *to, int64_t m_at,
                                     const int pixels)
{
    const mask winner = load_winners(r.m, 1, m_at, 1, pixels * r.channels, 1);
    vec sum = (vec)((mask)load_some(from, pixels * r.channels) & (mask)(winner == r.tap)) + splat(0);
    if (by)
        sum *= load_pixels(by, r.factor_step, r.channels, pixels);
    store_pixels(to, r.step, sum, r.channels, pixels);
}

static void run_max_unpool_one_vector(void *context, int64_t first, int64_t last)
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
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, p) + job->taps.x[0],
                   *by = reals(&s->factor, job->bases);
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
    const int one_vector = s->n_taps == 1 && !s->accumulate && NAME(pool_fits_vector)(s, bases, 4);
    const dtd_task dense = one_vector ? run_max_unpool_one_vector : run_max_unpool_dense;
    NAME(pool_rows)(s, bases, n_threads, 4, dense, run_max_unpool_strided);
}

/* ---------------------------------------------------------------------------------------------------- windows apart */

#if defined(__AVX512F__)
/* Taps whose pixels follow one another in out and factor, and their channels fit a vector together: one for each row of
 * a window. */
typedef struct {
    mask source, tap; /* of every lane: its channel, and which of the taps it belongs to */
    int64_t channels, lanes, width, x_pixel, m_pixel;
    int accumulate;
} scatter_row;

static int taps_in_a_vector(const dtd_step *s, const int64_t *step)
{
    const int64_t channels = s->x.shape[AXIS_C];
    return PAIRED && s->winner_bytes == 1 && step[2] > 1 && step[2] * channels <= VL &&
           s->out.stride[AXIS_W] == channels && s->x.stride[AXIS_C] == 1 && s->out.stride[AXIS_C] == 1 &&
           s->m.stride[AXIS_C] == 1 &&
           (!present(&s->factor) || (s->factor.stride[AXIS_W] == channels && s->factor.stride[AXIS_C] == 1));
}

/* v[source[l]] in lane l */
ALWAYS_INLINE vec permuted(vec v, mask source)
{
    return (vec)MM(_mm512_permutexvar)((__m512i)source, (MM_TYPE(__m512))v);
}

/* A row of windows onto one row of their taps, of which `first` is the number of the first. */
static void scatter_tap_row(const scatter_row r, const real *x, const uint8_t *m, const real *factor, real *out,
                            bits first)
{
    const mask tap = r.tap + first;
    for (int64_t w = 0; w < r.width; w++, x += r.x_pixel, m += r.m_pixel, out += r.lanes) {
        const mask winner = load_winners(m, 1, 0, 1, r.channels, 1);
        const mask won = (mask)((mask)permuted((vec)winner, r.source) == tap);
        vec sum = (vec)((mask)permuted(load_some(x, r.channels), r.source) & won) + splat(0);
        if (factor)
            sum *= load_some(factor + w * r.lanes, r.lanes);
        if (r.accumulate)
            sum = load_some(out, r.lanes) + sum;
        store_some(out, sum, r.lanes);
    }
}
#endif

/* out[q·x_step + tap_k, c] (+)= factor · x[q,c] where m[q,c] = k, else 0, for a row of windows q */
ALWAYS_INLINE void max_scatter_rows(const pool_job *job, int64_t first, int64_t last, const int dense)
{
    const dtd_step *s = job->s;
    const int64_t *shape = s->x.shape, *taps = table(&s->taps, job->bases), channels = shape[AXIS_C];
    const int64_t x_channel = s->x.stride[AXIS_C], m_channel = s->m.stride[AXIS_C], out_channel = s->out.stride[AXIS_C],
                  factor_channel = s->factor.stride[AXIS_C];
    const int64_t step[3] = {s->x_step[0], s->x_step[1], s->x_step[2]};
#if defined(__AVX512F__)
    const int joined = taps_in_a_vector(s, step);
    scatter_row joint = {.channels = channels,
                         .lanes = step[2] * channels,
                         .width = shape[AXIS_W],
                         .x_pixel = s->x.stride[AXIS_W],
                         .m_pixel = s->m.stride[AXIS_W],
                         .accumulate = s->accumulate};
    for (int i = 0; joined && i < VL; i++) {
        joint.source[i] = (bits)(i % channels);
        joint.tap[i] = (bits)(i / channels);
    }
#endif
    for (int64_t item = first; item < last; item++) {
        int64_t q[6] = {
            item / shape[AXIS_H] / shape[AXIS_D], 0, item / shape[AXIS_H] % shape[AXIS_D], item % shape[AXIS_H], 0, 0};
        int64_t p[6] = {q[AXIS_N], 0, q[AXIS_D] * step[0], q[AXIS_H] * step[1], 0, 0};
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, q), *factor = reals(&s->factor, job->bases);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        q[AXIS_N] = p[AXIS_N] = kept_sample(s, q[AXIS_N]);
        int64_t m_at = s->m.offset + offset_of(&s->m, q);
        factor = factor ? factor + offset_of(&s->factor, p) : NULL;
#if defined(__AVX512F__)
        if (joined) {
            const uint8_t *winners = (const uint8_t *)job->bases[s->m.base] + m_at;
            for (int32_t k = 0; k < s->n_taps; k += (int32_t)step[2])
                scatter_tap_row(joint, from, winners, factor ? factor + offset_of_tap(&s->factor, taps + 3 * k) : NULL,
                                to + offset_of_tap(&s->out, taps + 3 * k), k);
            continue;
        }
#endif
        for (int64_t w = 0; w < shape[AXIS_W]; w++) {
            for (int64_t c = 0; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                const vec x = load_channels(from + c * x_channel, x_channel, n, dense);
                const mask winner =
                    load_winners(job->bases[s->m.base], s->winner_bytes, m_at + c * m_channel, m_channel, n, dense);
                for (int32_t k = 0; k < s->n_taps; k++) {
                    real *at = to + offset_of_tap(&s->out, taps + 3 * k) + c * out_channel;
                    vec sum = (vec)((mask)x & (mask)(winner == (bits)k)) + splat(0);
                    if (factor)
                        sum *= load_channels(factor + offset_of_tap(&s->factor, taps + 3 * k) + c * factor_channel,
                                             factor_channel, n, dense);
                    if (s->accumulate)
                        sum = load_channels(at, out_channel, n, dense) + sum;
                    store_channels(at, out_channel, sum, n, dense);
                }
            }
            from += s->x.stride[AXIS_W];
            m_at += s->m.stride[AXIS_W];
            to += step[2] * s->out.stride[AXIS_W];
            factor = factor ? factor + step[2] * s->factor.stride[AXIS_W] : NULL;
        }
    }
}

static void run_max_scatter_dense(void *job, int64_t first, int64_t last) { max_scatter_rows(job, first, last, 1); }
static void run_max_scatter_strided(void *job, int64_t first, int64_t last) { max_scatter_rows(job, first, last, 0); }

void NAME(max_scatter)(const dtd_step *s, void *const *bases, int n_threads)
{
    NAME(pool_rows)(s, bases, n_threads, 3, run_max_scatter_dense, run_max_scatter_strided);
}
