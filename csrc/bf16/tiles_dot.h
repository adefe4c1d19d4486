/* tiles_dot.h: the tiles of bf16.c on AVX-512's dot products: each lane adds two products of bfloat16. */
#include <immintrin.h>

/* At twice the rate of multiply-adds at most, three products would take longer than one of float32. */
enum { MOST_COMPONENTS = 1 };

static void begin_tiles(void) {}
static void end_tiles(void) {}

enum { AT_ONCE = 8 }; /* pixels, by both halves of the outputs: 16 registers of sums */

/* Pixels p0 .. of a tile by `halves` of outputs, a constant wherever this is inlined. */
ALWAYS_INLINE void multiply_pixels(const bf16_tile *t, int tile, int p0, const int halves)
{
    const int64_t pixel = t->pixel;
    const char *w = t->w;
    char *sum[2] = {(char *)t->sum[0] + (tile * DTD_TILE_PIXELS + p0) * t->row,
                    (char *)t->sum[1] + (tile * DTD_TILE_PIXELS + p0) * t->row};
    __m512 a[AT_ONCE][2]; /* registers: every index below is a constant once the loops are unrolled */
#pragma GCC unroll 8
    for (int p = 0; p < AT_ONCE; p++)
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++)
            a[p][h] = t->resume ? _mm512_loadu_ps(sum[h] + p * t->row) : _mm512_setzero_ps();
    for (int64_t c = 0; c < t->n_chunks; c++)
        for (int64_t k = 0; k < t->n_taps; k++, w += 2 * HALF_BYTES) {
            const char *x = t->x[tile] + p0 * pixel + c * t->chunk + t->taps[k];
            for (int i = 0; i < DTD_BLOCK; i++) {
                __m512bh wi[2];
#pragma GCC unroll 2
                for (int h = 0; h < halves; h++)
                    wi[h] = (__m512bh)_mm512_load_si512(w + h * HALF_BYTES + i * CHUNK_BYTES);
#pragma GCC unroll 8
                for (int p = 0; p < AT_ONCE; p++) {
                    const __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(x + p * pixel + i * 4));
#pragma GCC unroll 2
                    for (int h = 0; h < halves; h++)
                        a[p][h] = _mm512_dpbf16_ps(a[p][h], wi[h], pair);
                }
            }
        }
#pragma GCC unroll 8
    for (int p = 0; p < AT_ONCE; p++)
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++)
            _mm512_storeu_ps(sum[h] + p * t->row, a[p][h]);
}

static void multiply(bf16_tile *t, int tiles, int halves, int components_y, int components_terms)
{
    (void)components_y, (void)components_terms; /* MOST_COMPONENTS */
    for (int m = 0; m < tiles; m++)
        for (int p = 0; p < DTD_TILE_PIXELS; p += AT_ONCE)
            if (halves == 1)
                multiply_pixels(t, m, p, 1);
            else
                multiply_pixels(t, m, p, 2);
    t->ahead_lines = 0; /* the hardware fetches weights that are read in order */
}
