/* single_output_tiles.h: the register tiles of channels_first.c for one output, in which kernel rows share a load of x.
 *
 * A row of x contributes to as many rows of the output as the kernel has rows.  Rows of x are taken in the order in
 * which every output row needs them, so that each sum is the same chain over (k, i); between two rows of x it is in
 * memory.
 */
#ifndef DTD_SINGLE_OUTPUT_TILES_H
#define DTD_SINGLE_OUTPUT_TILES_H

#include "base/simd.h"

/* vectors of a row, and rows of the kernel, in registers, of 32 or of 16 */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { COLUMNS = 2, MOST_ROWS = 8 };
#else
enum { COLUMNS = 2, MOST_ROWS = 6 };
#endif

typedef struct {
    /* w: [column of the kernel][input][row of the kernel], from the first row that takes part */
    const real *x, *w;
    real *sum;                              /* of the output row that the first kernel row contributes to */
    int64_t next;                           /* from there to the sum of the next kernel row */
    int64_t height, width, dx, c_in, plane; /* of the kernel; pixels from column to column */
} row_tile;

/* `rows` and `columns`, of vectors, are constants wherever this is inlined. */
ALWAYS_INLINE void run_row_tile(const row_tile *t, const int rows, const int columns)
{
    const real *w = t->w;
    vec a[MOST_ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 2
        for (int v = 0; v < columns; v++)
            a[j][v] = load(t->sum + j * t->next + v * VL);
    for (int64_t k = 0; k < t->width; k++) {
        const real *at = t->x + k * t->dx;
        for (int64_t i = 0; i < t->c_in; i++, at += t->plane, w += t->height) {
            vec x[COLUMNS];
#pragma GCC unroll 2
            for (int v = 0; v < columns; v++)
                x[v] = load(at + v * VL);
#pragma GCC unroll 8
            for (int j = 0; j < rows; j++) {
                vec wj = splat(w[j]);
#pragma GCC unroll 2
                for (int v = 0; v < columns; v++)
                    a[j][v] += x[v] * wj;
            }
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 2
        for (int v = 0; v < columns; v++)
            store(t->sum + j * t->next + v * VL, a[j][v]);
}

typedef void (*row_tile_function)(const row_tile *t);

#define ROW_TILES(n)                                                                                                   \
    static void column_##n(const row_tile *t) { run_row_tile(t, n < MOST_ROWS ? n : MOST_ROWS, 1); }                   \
    static void columns_##n(const row_tile *t) { run_row_tile(t, n < MOST_ROWS ? n : MOST_ROWS, COLUMNS); }
ROW_TILES(1)
ROW_TILES(2)
ROW_TILES(3)
ROW_TILES(4)
ROW_TILES(5)
ROW_TILES(6)
ROW_TILES(7)
ROW_TILES(8)

#define ROW_TILE(n) {column_##n, columns_##n}
static const row_tile_function ROW_TILE_FUNCTIONS[][COLUMNS] = {
    {0}, ROW_TILE(1), ROW_TILE(2), ROW_TILE(3), ROW_TILE(4), ROW_TILE(5), ROW_TILE(6), ROW_TILE(7), ROW_TILE(8)};

#endif
