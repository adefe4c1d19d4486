/* pool.c: max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins.
 *
 * Vectors run along the channels of one pixel, over all taps before the next VL channels.
 */
#include "simd.h"

#include <math.h>

typedef uint8_t bytes __attribute__((vector_size(VL)));

typedef struct {
    const dtd_step *s;
    void *const *bases;
    const int64_t *x_tap, *m_tap; /* elements from a window's origin to its taps (of the result's pixel to its windows) */
    int64_t reach[3][2];          /* least and largest offset of a tap, by axis */
} pool_job;

/* Whether pixels, from q along the row, stay within x when moved by every tap: from the first such w up to the last. */
static void find_interior(const pool_job *job, const int64_t *q, int64_t step, int64_t *first, int64_t *last)
{
    const int64_t *shape = job->s->x.shape;
    *first = *last = 0;
    for (int a = 0; a < 2; a++)
        if (q[AXIS_D + a] + job->reach[a][0] < 0 || q[AXIS_D + a] + job->reach[a][1] >= shape[AXIS_D + a])
            return;
    *first = max64(0, ceil_div(-job->reach[2][0], step));
    *last = shape[AXIS_W] > job->reach[2][1] ? (shape[AXIS_W] - 1 - job->reach[2][1]) / step + 1 : 0;
}

static int within(const int64_t *q, const int64_t *tap, const int64_t *shape)
{
    for (int a = 0; a < 3; a++)
        if (q[AXIS_D + a] + tap[a] < 0 || q[AXIS_D + a] + tap[a] >= shape[AXIS_D + a])
            return 0;
    return 1;
}

static int64_t offset_of_tap(const dtd_view *v, const int64_t *tap)
{
    return tap[0] * v->stride[AXIS_D] + tap[1] * v->stride[AXIS_H] + tap[2] * v->stride[AXIS_W];
}

/* n <= VL channels; `dense` says that they are contiguous, and is a constant wherever this is inlined. */
ALWAYS_INLINE vec load_channels(const real *p, int64_t channel, int64_t n, const int dense)
{
    if (dense)
        return n == VL ? load(p) : load_some(p, n);
    vec v = {0};
    for (int64_t i = 0; i < n; i++)
        v[i] = p[i * channel];
    return v;
}

ALWAYS_INLINE void store_channels(real *p, int64_t channel, vec v, int64_t n, const int dense)
{
    if (dense && n == VL)
        store(p, v);
    else if (dense)
        store_some(p, v, n);
    else
        for (int64_t i = 0; i < n; i++)
            p[i * channel] = v[i];
}

/* Winners, in 1 or 2 bytes each. */
ALWAYS_INLINE mask load_winners(const void *m, int width, int64_t at, int64_t channel, int64_t n, const int dense)
{
    const uint8_t *one = (const uint8_t *)m + at;
    const uint16_t *two = (const uint16_t *)m + at;
    mask winner = {0};
    if (dense && width == 1 && n == VL) {
        bytes b;
        memcpy(&b, one, VL);
        return __builtin_convertvector(b, mask);
    }
#if defined(__AVX512F__)
    if (dense && width == 1)
        return (mask)MM_BITS(_mm512_cvtepu8_, )(_mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), one));
#endif
    for (int64_t i = 0; i < n; i++)
        winner[i] = width == 1 ? one[i * channel] : two[i * channel];
    return winner;
}

ALWAYS_INLINE void store_winners(void *m, int width, int64_t at, int64_t channel, mask winner, int64_t n, const int dense)
{
    uint8_t *one = (uint8_t *)m + at;
    uint16_t *two = (uint16_t *)m + at;
    if (dense && width == 1 && n == VL) {
        bytes b = __builtin_convertvector(winner, bytes);
        memcpy(one, &b, VL);
        return;
    }
#if defined(__AVX512F__)
    if (dense && width == 1) {
        MM_BITS(_mm512_mask_cvt, _storeu_epi8)(one, (1u << n) - 1, (__m512i)winner);
        return;
    }
#endif
    for (int64_t i = 0; i < n; i++)
        if (width == 1)
            one[i * channel] = (uint8_t)winner[i];
        else
            two[i * channel] = (uint16_t)winner[i];
}

/* Two pixels' channels in one vector pay where they may be loaded and stored behind one another without touching what lies between. */
#if defined(__AVX512F__)
enum { PAIRED = 1 };
#else
enum { PAIRED = 0 };
#endif

/* The channels of one pixel or, `step` further, of two. */
ALWAYS_INLINE vec load_pixels(const real *p, int64_t step, int64_t channels, const int pixels)
{
    vec v = load_some(p, channels);
#if defined(__AVX512F__)
    if (pixels == 2)
        v = (vec)MM(_mm512_mask_loadu)((MM_TYPE(__m512))v, ((1u << channels) - 1) << channels, p + step - channels);
#endif
    (void)step, (void)pixels;
    return v;
}

ALWAYS_INLINE void store_pixels(real *p, int64_t step, vec v, int64_t channels, const int pixels)
{
    store_some(p, v, channels);
#if defined(__AVX512F__)
    if (pixels == 2)
        MM(_mm512_mask_storeu)(p + step - channels, ((1u << channels) - 1) << channels, (MM_TYPE(__m512))v);
#endif
    (void)step, (void)pixels;
}

/* Whether two pixels' winners, and channels of the given view, lie behind one another and fit a vector. */
static int in_pairs(const dtd_step *s, const dtd_view *v)
{
    const int64_t channels = s->out.shape[AXIS_C];
    return PAIRED && 2 * channels <= VL && v->stride[AXIS_W] == channels && (!present(&s->m) || s->m.stride[AXIS_W] == channels);
}

/* Where an item lies: pixel (n, d, h, 0) of the result. */
static void locate_row(const dtd_step *s, int64_t item, int64_t *p)
{
    const int64_t *shape = s->out.shape;
    p[AXIS_H] = item % shape[AXIS_H], item /= shape[AXIS_H];
    p[AXIS_D] = item % shape[AXIS_D], p[AXIS_N] = item / shape[AXIS_D];
    p[AXIS_C] = p[AXIS_W] = p[AXIS_EXTRA] = 0;
}

/* ----------------------------------------------------------------------------------------------------------------- gather */

/* out[p,c] = max_k x[p·x_step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it */
ALWAYS_INLINE void max_pool_rows(const pool_job *job, int64_t first, int64_t last, const int dense)
{
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), channels = s->out.shape[AXIS_C], width = s->out.shape[AXIS_W];
    const int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], m_channel = s->m.stride[AXIS_C];
    const int64_t step = s->x_step[2];
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
            q[AXIS_W] = w * step;
            for (int64_t c = 0; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                vec best = splat(-INFINITY);
                mask winner = (mask){0} - 1;
                for (int32_t k = 0; k < s->n_taps; k++) {
                    if ((w < inside || w >= outside) && !within(q, taps + 3 * k, s->x.shape))
                        continue;
                    vec v = load_channels(from + job->x_tap[k] + c * x_channel, x_channel, n, dense);
                    /* larger than the best so far, or the first NaN, or the first tap */
                    mask wins = (mask)(v > best) | ((mask)(v != v) & (mask)(best == best)) | (winner < 0);
                    best = (vec)(((mask)v & wins) | ((mask)best & ~wins));
                    winner = (k & wins) | (winner & ~wins);
                }
                store_channels(to + c * out_channel, out_channel, best, n, dense);
                if (m)
                    store_winners(m, s->mode, m_at + c * m_channel, m_channel, winner, n, dense);
            }
            from += step * s->x.stride[AXIS_W];
            to += s->out.stride[AXIS_W];
            m_at += s->m.stride[AXIS_W];
        }
    }
}

/* What a row's pixels have in common: copies, which a compiler keeps in registers while results are stored. */
typedef struct {
    int64_t channels, step, factor_step; /* between two pixels */
    int64_t n_taps;
    bits tap;
    const int64_t *taps;
    void *m;
} pixel_row;

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

static void run_max_pool_alone(void *context, int64_t first, int64_t last)
{
    const pool_job *job = context;
    const dtd_step *s = job->s;
    const int64_t width = s->out.shape[AXIS_W], pairs = in_pairs(s, &s->out) ? width / 2 : 0;
    const int64_t out = s->out.stride[AXIS_W], m = s->m.stride[AXIS_W];
    const pixel_row r = {.channels = s->out.shape[AXIS_C],
                         .step = s->x_step[2] * s->x.stride[AXIS_W],
                         .n_taps = s->n_taps,
                         .taps = job->x_tap,
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

/* ---------------------------------------------------------------------------------------------------------------- scatter */

/* out[p,c] (+)= factor[p,c] · sum of x[q,c] over the windows q = p + (d, h, w)_k within x whose winner is tap_k */
ALWAYS_INLINE void max_unpool_rows(const pool_job *job, int64_t first, int64_t last, const int dense)
{
    const dtd_step *s = job->s;
    const int64_t *taps = table(&s->taps, job->bases), channels = s->out.shape[AXIS_C], width = s->out.shape[AXIS_W];
    const int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], m_channel = s->m.stride[AXIS_C];
    const int64_t factor_channel = s->factor.stride[AXIS_C];
    const void *m = job->bases[s->m.base];
    for (int64_t item = first; item < last; item++) {
        int64_t p[6], inside, outside;
        locate_row(s, item, p);
        find_interior(job, p, 1, &inside, &outside);
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, p), *by = reals(&s->factor, job->bases);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        p[AXIS_N] = kept_sample(s, p[AXIS_N]);
        int64_t m_at = s->m.offset + offset_of(&s->m, p);
        by = by ? by + offset_of(&s->factor, p) : NULL;
        for (int64_t w = 0; w < width; w++) {
            p[AXIS_W] = w;
            for (int64_t c = 0; c < channels; c += VL) {
                const int64_t n = min64(VL, channels - c);
                vec sum = {0};
                for (int32_t k = 0; k < s->n_taps; k++) {
                    if ((w < inside || w >= outside) && !within(p, taps + 4 * k + 1, s->x.shape))
                        continue;
                    vec v = load_channels(from + job->x_tap[k] + c * x_channel, x_channel, n, dense);
                    mask winner = load_winners(m, s->mode, m_at + job->m_tap[k] + c * m_channel, m_channel, n, dense);
                    sum += (vec)((mask)v & (mask)(winner == (bits)taps[4 * k]));
                }
                if (by)
                    sum *= load_channels(by + w * s->factor.stride[AXIS_W] + c * factor_channel, factor_channel, n, dense);
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
                         .tap = (bits)table(&s->taps, job->bases)[0],
                         .m = job->bases[s->m.base]};
    for (int64_t item = first; item < last; item++) {
        int64_t p[6];
        locate_row(s, item, p);
        const real *from = reals(&s->x, job->bases) + offset_of(&s->x, p) + job->x_tap[0], *by = reals(&s->factor, job->bases);
        real *to = reals(&s->out, job->bases) + offset_of(&s->out, p);
        p[AXIS_N] = kept_sample(s, p[AXIS_N]);
        const int64_t m_at = s->m.offset + offset_of(&s->m, p) + job->m_tap[0];
        by = by ? by + offset_of(&s->factor, p) : NULL;
        for (int64_t w = 0; w < 2 * pairs; w += 2)
            max_unpool_pixels(r, from + w * x, by ? by + w * r.factor_step : NULL, to + w * r.step, m_at + w * m, 2);
        for (int64_t w = 2 * pairs; w < width; w++)
            max_unpool_pixels(r, from + w * x, by ? by + w * r.factor_step : NULL, to + w * r.step, m_at + w * m, 1);
    }
}

static void run_max_unpool_dense(void *job, int64_t first, int64_t last) { max_unpool_rows(job, first, last, 1); }
static void run_max_unpool_strided(void *job, int64_t first, int64_t last) { max_unpool_rows(job, first, last, 0); }

/* ----------------------------------------------------------------------------------------------------------------- driver */

static int contiguous(const dtd_view *v) { return !present(v) || v->stride[AXIS_C] == 1; }

/* Taps are `columns` numbers each, the last three (d, h, w). */
static void pool(const dtd_step *s, void *const *bases, int n_threads, int columns, dtd_task dense, dtd_task strided)
{
    int64_t x_tap[s->n_taps + 1], m_tap[s->n_taps + 1];
    pool_job job = {s, bases, x_tap, m_tap, {{0}}};
    for (int32_t k = 0; k < s->n_taps; k++) {
        const int64_t *tap = table(&s->taps, bases) + columns * (k + 1) - 3;
        x_tap[k] = offset_of_tap(&s->x, tap);
        m_tap[k] = offset_of_tap(&s->m, tap);
        for (int a = 0; a < 3; a++) {
            job.reach[a][0] = k ? min64(job.reach[a][0], tap[a]) : tap[a];
            job.reach[a][1] = k ? max64(job.reach[a][1], tap[a]) : tap[a];
        }
    }
    const int64_t *shape = s->out.shape;
    int64_t work = max64(1, s->n_taps * shape[AXIS_W] * ceil_div(shape[AXIS_C], VL)); /* vectors of a row */
    int all = contiguous(&s->out) && contiguous(&s->x) && contiguous(&s->m) && contiguous(&s->factor);
    dtd_parallel(n_threads, shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H], ceil_div(1 << 11, work), all ? dense : strided, &job);
}

/* Whether every tap of every window lies within x; taps are `columns` numbers each, the last three (d, h, w). */
static int all_within(const dtd_step *s, void *const *bases, int columns)
{
    for (int32_t k = 0; k < s->n_taps; k++)
        for (int a = 0; a < 3; a++) {
            const int64_t tap = table(&s->taps, bases)[columns * (k + 1) - 3 + a], step = columns == 3 ? s->x_step[a] : 1;
            if (tap < 0 || tap + (s->out.shape[AXIS_D + a] - 1) * step >= s->x.shape[AXIS_D + a])
                return 0;
        }
    return 1;
}

/* Whether a pixel's channels fit a vector, and its winners a byte each. */
static int one_vector(const dtd_step *s) { return s->mode == 1 && s->out.shape[AXIS_C] <= VL; }

void NAME(max_pool)(const dtd_step *s, void *const *bases, int n_threads)
{
    const int alone = s->n_taps && one_vector(s) && all_within(s, bases, 3);
    pool(s, bases, n_threads, 3, alone ? run_max_pool_alone : run_max_pool_dense, run_max_pool_strided);
}

void NAME(max_unpool)(const dtd_step *s, void *const *bases, int n_threads)
{
    const int alone = s->n_taps == 1 && !s->accumulate && one_vector(s) && all_within(s, bases, 4);
    pool(s, bases, n_threads, 4, alone ? run_max_unpool_alone : run_max_unpool_dense, run_max_unpool_strided);
}
