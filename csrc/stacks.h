/* stacks.h: register tiles of planar.c for one output, whose rows share what they load.
 *
 * A row of x meets as many rows of the one output as the kernel has, each by another row of the kernel.  Rows of x are
 * taken in the order in which every output meets them, so that its sum is the same chain over (k, i); between two of
 * them it lies in memory.
 */
#ifndef DTD_STACKS_H
#define DTD_STACKS_H

#include "simd.h"

/* vectors of a row, and rows of the kernel, in registers, of 32 or of 16 */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { COLUMNS = 2, MOST_ROWS = 8 };
#else
enum { COLUMNS = 2, MOST_ROWS = 6 };
#endif

typedef struct {
    /* w: [column of the kernel][input][row of the kernel], from the first row that takes part */
    const real *x, *w;
    real *sum;                              /* of the output's row that it meets; .. */
    int64_t next;                           /* .. from there to that of the kernel's next row */
    int64_t height, width, dx, c_in, plane; /* of the kernel; pixels from column to column */
} stack_tile;

/* `rows` and `columns`, of vectors, are constants wherever this is inlined. */
ALWAYS_INLINE void run_stack(const stack_tile *t, const int rows, const int columns)
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

typedef void (*stack_function)(const stack_tile *t);

#define STACKS(n)                                                                                                      \
    static void column_##n(const stack_tile *t) { run_stack(t, n < MOST_ROWS ? n : MOST_ROWS, 1); }                    \
    static void columns_##n(const stack_tile *t) { run_stack(t, n < MOST_ROWS ? n : MOST_ROWS, COLUMNS); }
STACKS(1)
STACKS(2)
STACKS(3)
STACKS(4)
STACKS(5)
STACKS(6)
STACKS(7)
STACKS(8)

#define STACK(n) {column_##n, columns_##n}
static const stack_function STACK_FUNCTIONS[][COLUMNS] = {{0},      STACK(1), STACK(2), STACK(3), STACK(4),
                                                          STACK(5), STACK(6), STACK(7), STACK(8)};

#endif
