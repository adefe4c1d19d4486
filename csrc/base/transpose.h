/* transpose.h: the transpose of VL vectors of VL numbers, in registers. */
#ifndef DTD_TRANSPOSE_H
#define DTD_TRANSPOSE_H

#include "simd.h"

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

/* a0 b0 a1 b1 ..: the lower halves of a and b, or the higher ones */
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
#define LOWER(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGHER(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX512F__) || (defined(__AVX2__) && !defined(DTD_DOUBLE))
#define LOWER(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGHER(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif defined(__AVX2__) || !defined(DTD_DOUBLE)
#define LOWER(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define HIGHER(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#else
#define LOWER(a, b) SHUFFLE(a, b, 0, 2)
#define HIGHER(a, b) SHUFFLE(a, b, 1, 3)
#endif

/* v[i][l] <-> v[l][i]: every round interleaves each row with that of half the rows on, and so turns one bit of i into
 * one of l */
ALWAYS_INLINE void transpose(vec v[VL])
{
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
        vec next[VL];
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = LOWER(v[i], v[i + VL / 2]);
            next[2 * i + 1] = HIGHER(v[i], v[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
            v[i] = next[i];
    }
}

#endif
