/* channels_first_layout.h: a few channels from channels last to channels first, and back. */
#ifndef DTD_CHANNELS_FIRST_LAYOUT_H
#define DTD_CHANNELS_FIRST_LAYOUT_H

#include "base/simd.h"

#if defined(__AVX512F__) && !defined(DTD_DOUBLE)

/* Three channels of 16 pixels, or three pairs of channels of 8, are three vectors of as many lanes, among pixels and as
 * planes: what lies in lane l of the t-th one among pixels is number `lanes` t + l there, what lies in lane l of the
 * t-th plane number 3 l + t.  A number's lane in the others counts through the first two of them and anew in the
 * last. */
#define IN_PLANES(lanes, number) ((number) / 3 + ((number) % 3 == 1 ? (lanes) : 0))
#define IN_PIXELS(lanes, number) ((number) % (2 * (lanes)))
#define EIGHT(where, lanes, first, step)                                                                               \
    where(lanes, first), where(lanes, (first) + (step)), where(lanes, (first) + 2 * (step)),                           \
        where(lanes, (first) + 3 * (step)), where(lanes, (first) + 4 * (step)), where(lanes, (first) + 5 * (step)),    \
        where(lanes, (first) + 6 * (step)), where(lanes, (first) + 7 * (step))
#define SIXTEEN(where, first, step) EIGHT(where, 16, first, step), EIGHT(where, 16, (first) + 8 * (step), step)

typedef int32_t lanes16 __attribute__((vector_size(VECTOR)));
typedef int64_t lanes8 __attribute__((vector_size(VECTOR)));

/* Bits of the lanes, from vector t, that lie in the last of the three. */
ALWAYS_INLINE unsigned in_last_plane(int lanes, int t) { return (unsigned)(0x4924924924924924 >> lanes * t); }
ALWAYS_INLINE unsigned in_last_pixels(int lanes, int t) { return ~0u << (2 * lanes - t + 2) / 3; }

ALWAYS_INLINE vec pick(const vec *from, lanes16 where, unsigned last)
{
    __m512 two = _mm512_permutex2var_ps((__m512)from[0], (__m512i)where, (__m512)from[1]);
    return (vec)_mm512_mask_permutexvar_ps(two, (__mmask16)last, (__m512i)where, (__m512)from[2]);
}

ALWAYS_INLINE vec pick_pairs(const vec *from, lanes8 where, unsigned last)
{
    __m512d two = _mm512_permutex2var_pd((__m512d)from[0], (__m512i)where, (__m512d)from[1]);
    return (vec)_mm512_mask_permutexvar_pd(two, (__mmask8)last, (__m512i)where, (__m512d)from[2]);
}

ALWAYS_INLINE void three_to_channels_last(const vec *planes, vec *pixels)
{
#pragma GCC unroll 3
    for (int t = 0; t < 3; t++)
        pixels[t] = pick(planes, (lanes16){SIXTEEN(IN_PLANES, 16 * t, 1)}, in_last_plane(16, t));
}

ALWAYS_INLINE void six_to_channels_last(const vec *planes, vec *pixels)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        vec pairs[3];
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++)
            pairs[i] = (vec)_mm512_permutex2var_ps((__m512)planes[2 * i], half ? high : low, (__m512)planes[2 * i + 1]);
#pragma GCC unroll 3
        for (int t = 0; t < 3; t++)
            pixels[3 * half + t] = pick_pairs(pairs, (lanes8){EIGHT(IN_PLANES, 8, 8 * t, 1)}, in_last_plane(8, t));
    }
}

ALWAYS_INLINE void six_to_channels_first(const vec *pixels, vec *planes)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
#pragma GCC unroll 3
    for (int t = 0; t < 3; t++) {
        const lanes8 where = {EIGHT(IN_PIXELS, 8, t, 3)};
        vec low = pick_pairs(pixels, where, in_last_pixels(8, t)),
            high = pick_pairs(pixels + 3, where, in_last_pixels(8, t));
        planes[2 * t] = (vec)_mm512_permutex2var_ps((__m512)low, even, (__m512)high);
        planes[2 * t + 1] = (vec)_mm512_permutex2var_ps((__m512)low, odd, (__m512)high);
    }
}

/* n numbers of what vectors hold. */
ALWAYS_INLINE void store_pixels(real *to, const vec *pixels, const int n_vectors, int n)
{
#pragma GCC unroll 6
    for (int t = 0; t < n_vectors; t++)
        if (n >= (t + 1) * VL)
            store(to + t * VL, pixels[t]);
        else {
            if (n > t * VL)
                store_some(to + t * VL, pixels[t], n - t * VL);
            return;
        }
}

/* 8 channels or less of 16 pixels. */
ALWAYS_INLINE void store_channels_last_masked(const real (*rows)[VL], real *to, int64_t pixel, int n_pixels,
                                              int n_channels)
{
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0),
                  second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    const __mmask8 channels = (__mmask8)((1u << n_channels) - 1);
    __m512d half[2][4]; /* [channel / 4][pixel % 4]: 4 channels of the pixels 4 apart */
    for (int i = 0; i < 2; i++) {
        __m512 a = (__m512)load(rows[4 * i]), b = (__m512)load(rows[4 * i + 1]);
        __m512 c = (__m512)load(rows[4 * i + 2]), d = (__m512)load(rows[4 * i + 3]);
        __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), ab2 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d)), cd2 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
        half[i][0] = _mm512_unpacklo_pd(ab, cd), half[i][1] = _mm512_unpackhi_pd(ab, cd);
        half[i][2] = _mm512_unpacklo_pd(ab2, cd2), half[i][3] = _mm512_unpackhi_pd(ab2, cd2);
    }
    for (int q = 0; q < 4; q++)
        for (int i = 0; i < 2; i++) {
            __m512 two = _mm512_castpd_ps(_mm512_permutex2var_pd(half[0][q], i ? second : first, half[1][q]));
            const int p = 8 * i + q;
            if (p < n_pixels)
                _mm256_mask_storeu_ps(to + p * pixel, channels, _mm512_castps512_ps256(two));
            if (p + 4 < n_pixels)
                _mm256_mask_storeu_ps(to + (p + 4) * pixel, channels, _mm512_extractf32x8_ps(two, 1));
        }
}

#endif

/* planes[i][q] = x[q, i], and VL zeros behind each plane */
static void to_channels_first(const real *x, int64_t pixel, int64_t c_in, int64_t n, int64_t plane, real *planes)
{
    int64_t whole = 0; /* pixels */
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
    for (; pixel == 6 && c_in == 6 && whole + VL <= n; whole += VL) {
        vec from[6], to[6];
        for (int i = 0; i < 6; i++)
            from[i] = load(x + whole * 6 + i * VL);
        six_to_channels_first(from, to);
        for (int i = 0; i < 6; i++)
            store(planes + i * plane + whole, to[i]);
    }
#endif
    for (int64_t i = 0; i < c_in; i++, planes += plane) {
        int64_t q = whole;
        for (; q + VL <= n; q += VL)
            store(planes + q, pixel == 1 ? load(x + q) : load_strided(x + i + q * pixel, pixel));
        for (; q < n; q++)
            planes[q] = x[i + q * pixel];
        store(planes + n, (vec){0});
    }
}

/* to[p, j] = rows[j][p], channels j in a row; there may be 8 rows to read from */
static void store_channels_last(const real (*rows)[VL], real *to, int64_t pixel, int n_pixels, int n_channels)
{
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
    vec planes[6], pixels[6];
    if (pixel == n_channels && n_channels == 3) {
        for (int i = 0; i < 3; i++)
            planes[i] = load(rows[i]);
        three_to_channels_last(planes, pixels);
        store_pixels(to, pixels, 3, n_pixels * 3);
    } else if (pixel == n_channels && n_channels == 6) {
        for (int i = 0; i < 6; i++)
            planes[i] = load(rows[i]);
        six_to_channels_last(planes, pixels);
        store_pixels(to, pixels, 6, n_pixels * 6);
    } else
        store_channels_last_masked(rows, to, pixel, n_pixels, n_channels);
#else
    for (int p = 0; p < n_pixels; p++)
        for (int j = 0; j < n_channels; j++)
            to[p * pixel + j] = rows[j][p];
#endif
}

#endif
