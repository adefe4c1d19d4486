/* wide.h: sums in double, whatever the type of numbers. */
#ifndef DTD_WIDE_H
#define DTD_WIDE_H

#include "simd.h"

enum { WIDE_LANES = VECTOR / sizeof(double) };

/* As many doubles as fill a vector, as many numbers that become these, and a mask of them. */
typedef double wide __attribute__((vector_size(VECTOR), aligned(sizeof(double)), may_alias));
typedef int64_t longs __attribute__((vector_size(VECTOR)));
typedef real narrow __attribute__((vector_size(WIDE_LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

ALWAYS_INLINE narrow at(const real *row, int64_t i) { return *(const narrow *)(row + i); }

/* gcc 12 converts halves of 512 bits, and joins them. */
ALWAYS_INLINE wide widened(narrow v)
{
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
    return (wide)_mm512_cvtps_pd((__m256)v);
#else
    return __builtin_convertvector(v, wide);
#endif
}

#endif
