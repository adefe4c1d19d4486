/* parts_dot.h: tiles of parts.c on the dot products of AVX-512: a lane adds both products of a pair of bfloat16. */
#include <immintrin.h>

enum { WORTH_THREE_PARTS = 0 }; /* twice the rate of multiply-adds, so that six products cost three */

static void begin_tiles(void) {}
static void end_tiles(void) {}

/* sum[pixel][output] (+)= the products of one tile of pixels and one half of outputs; `parts` is a constant wherever this is inlined. */
ALWAYS_INLINE void multiply_tile(const parts_tile *t, int tile, int half, const int parts, const int stored)
{
    char *sum = (char *)t->sum[half] + tile * DTD_TILE_PIXELS * t->row;
    const char *w = t->w + half * HALF_BYTES;
    __m512 a[DTD_TILE_PIXELS]; /* registers: every index below is a constant once the loops are unrolled */
#pragma GCC unroll 16
    for (int p = 0; p < DTD_TILE_PIXELS; p++)
        a[p] = t->resume ? _mm512_loadu_ps(sum + p * t->row) : _mm512_setzero_ps();
    for (int64_t c = 0; c < t->n_chunks; c++)
        for (int64_t k = 0; k < t->n_taps; k++, w += stored * 2 * HALF_BYTES) {
            const char *x = t->x[tile] + c * t->chunk + t->taps[k];
            for (int i = 0; i < DTD_BLOCK; i++)
                for (int product = parts == 1; product < (parts == 1 ? 2 : 3); product++) { /* x1 w2, x1 w1, x2 w1 */
                    const __m512bh weights = (__m512bh)_mm512_load_si512(w + (product == 0) * 2 * HALF_BYTES + i * CHUNK_BYTES);
                    const char *pair = x + (product == 2) * CHUNK_BYTES + i * 4;
#pragma GCC unroll 16
                    for (int p = 0; p < DTD_TILE_PIXELS; p++)
                        a[p] = _mm512_dpbf16_ps(a[p], weights, (__m512bh)_mm512_set1_epi32(*(const int32_t *)(pair + p * t->pixel)));
                }
        }
#pragma GCC unroll 16
    for (int p = 0; p < DTD_TILE_PIXELS; p++)
        _mm512_storeu_ps(sum + p * t->row, a[p]);
}

static void multiply(parts_tile *t, int tiles, int halves, int parts_y, int parts_terms)
{
    for (int m = 0; m < tiles; m++)
        for (int h = 0; h < halves; h++)
            if (parts_y == 1)
                multiply_tile(t, m, h, 1, 1);
            else if (h && parts_terms == 1)
                multiply_tile(t, m, h, 1, 2);
            else
                multiply_tile(t, m, h, 2, 2);
    t->ahead_lines = 0; /* the hardware fetches weights that are read in order */
}
