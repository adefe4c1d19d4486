/* simd.h: vectors of the instruction set that a file is compiled for, and the sizes of its register tiles. */
#ifndef DTD_SIMD_H
#define DTD_SIMD_H

#include "kernel.h"

#include <string.h>

/* A dense tile is PIXELS pixels by one block of DTD_BLOCK channels, in passes over SINGLE_VECTORS vectors of sums per
 * pixel (DUAL_VECTORS when every vector has a second one for w+), such that sums, weights and one broadcast fit the
 * registers.  With 32 registers of a whole block (WIDE: 32 of 64 bytes) a tile may also take a pair of blocks. */
#if defined(__AVX512F__) && defined(DTD_DOUBLE)
enum { VECTOR = 64, PIXELS = 14, SINGLE_VECTORS = 2, DUAL_VECTORS = 1, PAIRS = 0, VECTORS = 2, WIDE = 1 };
#elif defined(__AVX512F__)
enum { VECTOR = 64, PIXELS = 14, SINGLE_VECTORS = 1, DUAL_VECTORS = 1, PAIRS = 1, VECTORS = 2, WIDE = 1 };
#elif defined(__AVX2__)
enum { VECTOR = 32, PIXELS = 6, SINGLE_VECTORS = 2, DUAL_VECTORS = 1, PAIRS = 0, VECTORS = 2, WIDE = 0 };
#elif defined(__aarch64__)
enum { VECTOR = 16, PIXELS = 6, SINGLE_VECTORS = 4, DUAL_VECTORS = 2, PAIRS = 0, VECTORS = 4, WIDE = 0 };
#else
enum { VECTOR = 16, PIXELS = 6, SINGLE_VECTORS = 2, DUAL_VECTORS = 1, PAIRS = 0, VECTORS = 2, WIDE = 0 };
#endif

/* An intrinsic, and an intrinsic's type, for this type of numbers (MM_BITS: for integers of its size, MM_WIDE_MASK: a
 * bit per number of 64 bytes). */
#ifdef DTD_DOUBLE
#define MM(operation) operation##_pd
#define MM_MASK(operation) operation##_pd_mask
#define MM_TYPE(type) type##d
#define MM_BITS(before, after) before##epi64##after
#define MM_WIDE_MASK __mmask8
#define SIGN_BIT INT64_MIN
typedef int64_t bits;
#else
#define MM(operation) operation##_ps
#define MM_MASK(operation) operation##_ps_mask
#define MM_TYPE(type) type
#define MM_BITS(before, after) before##epi32##after
#define MM_WIDE_MASK __mmask16
#define SIGN_BIT INT32_MIN
typedef int32_t bits;
#endif

enum { VL = VECTOR / sizeof(real) }; /* numbers of a vector */

typedef real vec __attribute__((vector_size(VECTOR)));
typedef real vec_unaligned __attribute__((vector_size(VECTOR), aligned(sizeof(real)), may_alias));
typedef bits mask __attribute__((vector_size(VECTOR)));

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__x86_64__)
#include <emmintrin.h> /* which compilers read in a tenth of the time */
#endif

ALWAYS_INLINE vec load(const real *p) { return *(const vec_unaligned *)p; }
ALWAYS_INLINE void store(real *p, vec v) { *(vec_unaligned *)p = v; }
ALWAYS_INLINE vec splat(real t) { return t - (vec){0}; }

/* The compiler keeps v in a register, once computed, rather than fold its load into every use. */
#if defined(__AVX512F__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v) ((void)0)
#endif

/* VL elements, `stride` apart */
ALWAYS_INLINE vec load_strided(const real *p, int64_t stride)
{
#if defined(__AVX512F__) && defined(DTD_DOUBLE)
    const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    return (vec)_mm512_i64gather_pd(_mm512_mullo_epi64(lanes, _mm512_set1_epi64(stride)), p, 8);
#elif defined(__AVX512F__)
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return (vec)_mm512_i32gather_ps(_mm512_mullo_epi32(lanes, _mm512_set1_epi32((int)stride)), p, 4);
#else
    vec v = {0};
    for (int i = 0; i < VL; i++)
        v[i] = p[i * stride];
    return v;
#endif
}

/* The first n <= VL lanes; the others are 0 and their memory is not touched. */
ALWAYS_INLINE vec load_some(const real *p, int64_t n)
{
#if defined(__AVX512F__)
    return (vec)MM(_mm512_maskz_loadu)((1u << n) - 1, p);
#else
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
#endif
}

ALWAYS_INLINE void store_some(real *p, vec v, int64_t n)
{
#if defined(__AVX512F__)
    MM(_mm512_mask_storeu)(p, (1u << n) - 1, (MM_TYPE(__m512))v);
#else
    memcpy(p, &v, (size_t)n * sizeof *p);
#endif
}

/* max(a, w) and min(a, w); w where they are equal, or where one of them is NaN */
ALWAYS_INLINE vec vec_max(vec a, vec w)
{
#if defined(__AVX512F__)
    return (vec)MM(_mm512_max)((MM_TYPE(__m512))a, (MM_TYPE(__m512))w);
#elif defined(__AVX2__)
    return (vec)MM(_mm256_max)((MM_TYPE(__m256))a, (MM_TYPE(__m256))w);
#elif defined(__SSE2__)
    return (vec)MM(_mm_max)((MM_TYPE(__m128))a, (MM_TYPE(__m128))w);
#else
    return (vec)(((mask)a & (mask)(w < a)) | ((mask)w & ~(mask)(w < a)));
#endif
}

ALWAYS_INLINE vec vec_min(vec a, vec w)
{
#if defined(__AVX512F__)
    return (vec)MM(_mm512_min)((MM_TYPE(__m512))a, (MM_TYPE(__m512))w);
#elif defined(__AVX2__)
    return (vec)MM(_mm256_min)((MM_TYPE(__m256))a, (MM_TYPE(__m256))w);
#elif defined(__SSE2__)
    return (vec)MM(_mm_min)((MM_TYPE(__m128))a, (MM_TYPE(__m128))w);
#else
    return (vec)(((mask)a & (mask)(w > a)) | ((mask)w & ~(mask)(w > a)));
#endif
}

/* max(0, w) and min(0, w) */
ALWAYS_INLINE vec vec_positive(vec w) { return vec_max((vec){0}, w); }
ALWAYS_INLINE vec vec_negative(vec w) { return -vec_positive(-w); }

/* a / b with x/0 := 0 */
ALWAYS_INLINE vec vec_quotient(vec a, vec b) { return (vec)((mask)(a / b) & (mask)(b != 0)); }

/* d + stabilizer·sgn d, sgn 0 = +1 */
ALWAYS_INLINE vec vec_stabilised(vec d, real stabilizer)
{
    return d + (vec)((mask)splat(stabilizer) ^ ((mask)(d < 0) & SIGN_BIT));
}

/* The lanes of a vector as the tree ((0+h) + ...), h = VL/2, VL/4, ... */
ALWAYS_INLINE real add_lanes(vec v)
{
#if defined(__AVX512F__) && defined(DTD_DOUBLE)
    __m512d wide = (__m512d)v;
    __m256d sum4 = _mm256_add_pd(_mm512_castpd512_pd256(wide), _mm512_extractf64x4_pd(wide, 1));
#elif defined(__AVX512F__)
    __m512 wide = (__m512)v;
    __m256 sum8 = _mm256_add_ps(_mm512_castps512_ps256(wide), _mm512_extractf32x8_ps(wide, 1));
#elif defined(__AVX2__) && defined(DTD_DOUBLE)
    __m256d sum4 = (__m256d)v;
#elif defined(__AVX2__)
    __m256 sum8 = (__m256)v;
#endif
#if defined(__AVX2__) && defined(DTD_DOUBLE)
    __m128d sum2 = _mm_add_pd(_mm256_castpd256_pd128(sum4), _mm256_extractf128_pd(sum4, 1));
    return _mm_cvtsd_f64(_mm_add_sd(sum2, _mm_unpackhi_pd(sum2, sum2)));
#elif defined(__AVX2__)
    __m128 sum4 = _mm_add_ps(_mm256_castps256_ps128(sum8), _mm256_extractf128_ps(sum8, 1));
    __m128 sum2 = _mm_add_ps(sum4, _mm_movehl_ps(sum4, sum4));
    return _mm_cvtss_f32(_mm_add_ss(sum2, _mm_movehdup_ps(sum2)));
#else
    real lane[VL];
    store(lane, v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
#endif
}

/* to[j] = add_lanes(v[j · step]), j < DTD_BLOCK */
ALWAYS_INLINE void add_lanes_of(const vec *v, int64_t step, real *to)
{
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
    /* the same tree for 16 vectors at once: their halves side by side, then their quarters, ... */
    __m512 half[8], quarter[4], pair[2];
#define V(j) ((__m512)v[(j) * step])
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 2; i++) {
            __m512 a = V(8 * i + r), b = V(8 * i + 4 + r);
            half[2 * r + i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        }
#undef V
    for (int r = 0; r < 4; r++) {
        __m512 a = half[2 * r], b = half[2 * r + 1];
        quarter[r] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    for (int r = 0; r < 2; r++) {
        __m512d a = _mm512_castps_pd(quarter[2 * r]), b = _mm512_castps_pd(quarter[2 * r + 1]);
        pair[r] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    store(to, (vec)_mm512_add_ps(_mm512_shuffle_ps(pair[0], pair[1], 0x88), _mm512_shuffle_ps(pair[0], pair[1], 0xdd)));
#else
    for (int j = 0; j < DTD_BLOCK; j++)
        to[j] = add_lanes(v[j * step]);
#endif
}

#define DUAL_MAP DTD_N_WEIGHT_MAPS /* beside the weight maps: w and w+ at once */

/* Kernels are compiled once per weight map. */
#define EACH_WEIGHT_MAP(define)                                                                                        \
    define(DTD_W) define(DTD_W_POSITIVE) define(DTD_W_NEGATIVE) define(DTD_W_SQUARE) define(DTD_W_ONE)                 \
        define(DTD_W_ABS) define(DTD_W_GAMMA_POSITIVE) define(DTD_W_GAMMA_NEGATIVE)
#define EACH_MAP(define) EACH_WEIGHT_MAP(define) define(DUAL_MAP)

/* wm(w), see dtd_weight_map; `map` is a constant wherever this is inlined */
ALWAYS_INLINE vec map_weight(int map, vec w, real gamma)
{
    switch ((dtd_weight_map)map) {
    case DTD_W:
    case DUAL_MAP: return w;
    case DTD_W_POSITIVE: return vec_positive(w);
    case DTD_W_NEGATIVE: return vec_negative(w);
    case DTD_W_SQUARE: return w * w;
    case DTD_W_ONE: return splat(1);
    case DTD_W_ABS: return (vec)((mask)w & ~SIGN_BIT);
    case DTD_W_GAMMA_POSITIVE: return w + gamma * vec_positive(w);
    case DTD_W_GAMMA_NEGATIVE: return w + gamma * vec_negative(w);
    }
    __builtin_unreachable(); /* verify.c refuses all others */
}

/* wm(w) in double, likewise */
ALWAYS_INLINE double map_double(int map, double w, double gamma)
{
    switch ((dtd_weight_map)map) {
    case DTD_W: return w;
    case DTD_W_POSITIVE: return w < 0 ? 0 : w;
    case DTD_W_NEGATIVE: return w > 0 ? 0 : w;
    case DTD_W_SQUARE: return w * w;
    case DTD_W_ONE: return 1;
    case DTD_W_ABS: return w < 0 ? -w : w;
    case DTD_W_GAMMA_POSITIVE: return w + gamma * (w < 0 ? 0 : w);
    case DTD_W_GAMMA_NEGATIVE: return w + gamma * (w > 0 ? 0 : w);
    case DTD_N_WEIGHT_MAPS: break;
    }
    __builtin_unreachable(); /* verify.c refuses all others */
}

/* map_weight where `map` is not a constant. */
ALWAYS_INLINE vec map_any(int map, vec w, real gamma)
{
#define CASE(each)                                                                                                     \
    case each: return map_weight(each, w, gamma);
    switch ((dtd_weight_map)map) {
        EACH_MAP(CASE)
    }
#undef CASE
    __builtin_unreachable();
}

#endif
