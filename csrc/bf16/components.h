/* components.h: floats as sums of bfloat16 components, and the tile that multiplies them.
 *
 *     x = x1 + x2 + x3 exactly, x1 = bf16(x), x2 = bf16(x - x1), x3 = x - x1 - x2
 *     x w = x1 w1 + (x1 w2 + x2 w1) + (x2 w2 + x1 w3 + x3 w1) + e,    |e| <= 2^-23 |x w|
 *
 * Six products of bfloat16 make one product of float32, as precise as float32 itself.  Matrix units do sixteen in the
 * time of one multiply-add.  With two components, x1 w1 + (x1 w2 + x2 w1) has a relative error of 2^-15; with one, x1
 * w1 is the product in bfloat16.  Sums are always float32.  Components below 2^-126 count as 0.
 *
 * Channels are taken in chunks of 32.  Pixels are packed as [pixel][component][16 pairs], weights as
 * [component][half][16 pairs][16 outputs of a pair of values].  A pair is (channel i, channel 16 + i) of its chunk.
 */
#ifndef DTD_COMPONENTS_H
#define DTD_COMPONENTS_H

#include "base/simd.h"

enum {
    LINE_BYTES = 64,
    CHUNK = 32,                        /* channels */
    CHUNK_BYTES = CHUNK * 2,           /* of one component of a pixel */
    HALF_BYTES = CHUNK * 2 * DTD_BLOCK /* of one component of a chunk of weights, for one block of outputs */
};

/* What a tile sums up: y from w, terms from w+ beside it (dual), each of one component or of three. */
typedef struct {
    const char *x[2]; /* pixels: two tiles of DTD_TILE_PIXELS */
    int64_t pixel;    /* bytes from one pixel of a tile to the next */
    int64_t chunk;    /* bytes from one chunk of channels to the next */
    const int64_t *taps;
    int64_t n_taps, n_chunks;
    const char *w; /* [chunk][tap][component][half] */
    float *sum[2]; /* of each half: rows of DTD_BLOCK, one per pixel */
    int64_t row;   /* bytes from one to the next */
    int resume;    /* sum holds what earlier chunks gave */
    /* memory to fetch meanwhile, ahead_step lines at a time: strips of ahead_strip lines with gaps between them */
    const char *ahead;
    int64_t ahead_lines, ahead_step, ahead_strip, ahead_left, ahead_gap;
} bf16_tile;

ALWAYS_INLINE void fetch_ahead(bf16_tile *t)
{
    for (int64_t i = 0; i < t->ahead_step && t->ahead_lines > 0; i++, t->ahead_lines--, t->ahead += LINE_BYTES) {
        _mm_prefetch(t->ahead, _MM_HINT_T1);
        if (--t->ahead_left == 0) {
            t->ahead_left = t->ahead_strip;
            t->ahead += t->ahead_gap;
        }
    }
}

/* Two blocks of 16 values as bfloat16 pairs, in n parts. */
ALWAYS_INLINE void split(vec a, vec b, const int n, __m512i *component)
{
    const __m512i half = _mm512_set1_epi32(0x8000), high = _mm512_set1_epi32((int)0xffff0000);
#pragma GCC unroll 3
    for (int i = 0; i < n; i++) {
        if (n == 1) { /* the instruction rounds ties to even, and keeps every NaN one */
            component[0] = (__m512i)_mm512_mask_blend_epi16(
                0xaaaaaaaa, _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)a)),
                _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)b)), 16));
            return;
        }
        const int last = i == 2; /* exact by now: nothing to round */
        __m512i ra = last ? (__m512i)a : _mm512_and_epi32(_mm512_add_epi32((__m512i)a, half), high);
        __m512i rb = last ? (__m512i)b : _mm512_and_epi32(_mm512_add_epi32((__m512i)b, half), high);
        component[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(ra, 16), rb);
        a -= (vec)ra;
        b -= (vec)rb;
    }
}

#endif
