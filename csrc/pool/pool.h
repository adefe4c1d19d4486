/* pool.h: what max_pool.c and max_unpool.c share. */
#ifndef DTD_POOL_H
#define DTD_POOL_H

#include "base/simd.h"

typedef uint8_t bytes __attribute__((vector_size(VL)));

/* Taps of a window, or the windows of a result: elements from its origin to them in x and m, and their numbers. */
typedef struct {
    int32_t n;
    int64_t *x, *m, *number;
} tap_list;

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int columns;         /* of s->taps: numbers of a tap, the last three (d, h, w) */
    tap_list taps;       /* all of them */
    int64_t reach[3][2]; /* least and largest offset of a tap, by axis */
} pool_job;

/* Whether pixels, from q along the row, stay within x when moved by every tap: from the first such w up to the last. */
ALWAYS_INLINE void find_interior(const pool_job *job, const int64_t *q, int64_t step, int64_t *first, int64_t *last)
{
    const int64_t *shape = job->s->x.shape;
    *first = *last = 0;
    for (int a = 0; a < 2; a++)
        if (q[AXIS_D + a] + job->reach[a][0] < 0 || q[AXIS_D + a] + job->reach[a][1] >= shape[AXIS_D + a])
            return;
    *first = max64(0, ceil_div(-job->reach[2][0], step));
    *last = shape[AXIS_W] > job->reach[2][1] ? (shape[AXIS_W] - 1 - job->reach[2][1]) / step + 1 : 0;
}

ALWAYS_INLINE int within(const int64_t *q, const int64_t *tap, const int64_t *shape)
{
    for (int a = 0; a < 3; a++)
        if (q[AXIS_D + a] + tap[a] < 0 || q[AXIS_D + a] + tap[a] >= shape[AXIS_D + a])
            return 0;
    return 1;
}

/* Those taps of a pixel that lie within x. */
ALWAYS_INLINE void pick_taps(const pool_job *job, const int64_t *q, tap_list *some)
{
    const int64_t *taps = table(&job->s->taps, job->bases) + job->columns - 3;
    some->n = 0;
    for (int32_t k = 0; k < job->taps.n; k++)
        if (within(q, taps + job->columns * k, job->s->x.shape)) {
            some->x[some->n] = job->taps.x[k];
            some->m[some->n] = job->taps.m[k];
            some->number[some->n++] = job->taps.number[k];
        }
}

ALWAYS_INLINE int64_t offset_of_tap(const dtd_view *v, const int64_t *tap)
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

ALWAYS_INLINE void store_winners(void *m, int width, int64_t at, int64_t channel, mask winner, int64_t n,
                                 const int dense)
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

/* Two pixels' channels in one vector pay where they may be loaded and stored behind one another without touching what
 * lies between. */
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
ALWAYS_INLINE int in_pairs(const dtd_step *s, const dtd_view *v)
{
    const int64_t channels = s->out.shape[AXIS_C];
    return PAIRED && 2 * channels <= VL && v->stride[AXIS_W] == channels &&
           (!present(&s->m) || s->m.stride[AXIS_W] == channels);
}

/* Where an item lies: pixel (n, d, h, 0) of the result. */
ALWAYS_INLINE void locate_row(const dtd_step *s, int64_t item, int64_t *p)
{
    const int64_t *shape = s->out.shape;
    p[AXIS_H] = item % shape[AXIS_H], item /= shape[AXIS_H];
    p[AXIS_D] = item % shape[AXIS_D], p[AXIS_N] = item / shape[AXIS_D];
    p[AXIS_C] = p[AXIS_W] = p[AXIS_EXTRA] = 0;
}

/* What a row's pixels have in common: copies, which a compiler keeps in registers while results are stored. */
typedef struct {
    int64_t channels, step, factor_step; /* between two pixels */
    int64_t n_taps;
    bits tap;
    const int64_t *taps;
    void *m;
} pixel_row;

/* Wide pixels: channels that are contiguous, winners of a byte each, WIDE_PIXEL of them at a time. */
#if defined(__AVX512F__)
enum { WIDE_VECTORS = 4, WIDE_PIXEL = WIDE_VECTORS * VL };

/* The first n channels, at most WIDE_PIXEL. */
ALWAYS_INLINE uint64_t first_channels(int64_t n) { return n < 64 ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0; }
#endif

/* Runs `dense` over the rows of the result (of x for MAX_SCATTER) where all channels are contiguous, else `strided`;
 * taps are `columns` numbers each. */
void NAME(pool_rows)(const dtd_step *s, void *const *bases, int n_threads, int columns, dtd_task dense,
                     dtd_task strided);

/* Whether a pixel's channels fit a vector, its winners a byte each, and every tap of every window lies within x. */
int NAME(pool_fits_vector)(const dtd_step *s, void *const *bases, int columns);

#endif
