/* channels_first_tiles.h: the register tiles of channels_first.c: vectors of pixels by all outputs.
 *
 * The usual epilogues of one tile are computed while the next tile is multiplied.
 */
#ifndef DTD_CHANNELS_FIRST_TILES_H
#define DTD_CHANNELS_FIRST_TILES_H

#include "base/simd.h"

/* vectors of sums in registers, of 32 or of 16 */
#if defined(__AVX512F__) || defined(__aarch64__)
/* BESIDE: a tile's divisions and what goes with them, while the next one is multiplied */
enum { SUMS = 24, BESIDE = 1 };
#else
enum { SUMS = 12, BESIDE = 0 };
#endif

enum {
    MOST_OUTPUTS = 8,
    AT_ONCE = 8, /* vectors of pixels in a register tile, at most */
};

/* Vectors of pixels in a register tile. */
#define VECTORS_OF(outputs, dual)                                                                                      \
    (SUMS / ((outputs) * (1 + (dual))) < AT_ONCE ? SUMS / ((outputs) * (1 + (dual))) : AT_ONCE)

/* A usual epilogue, as in epilogue.c. */
typedef struct {
    int dual, relu, gate, plain;                            /* plain: without coefficient and stabilizer */
    real coefficient, stabilizer, bias[SUMS], bias_d[SUMS]; /* [vector][output] */
} usual_epilogue;

/* A tile's sums with w and w+, then act(y) and gates, where they go to. */
typedef struct {
    /* [vector][output], and what store_channels_last may read behind them */
    real y[SUMS + MOST_OUTPUTS][VL], d[SUMS + MOST_OUTPUTS][VL];
    real *out[AT_ONCE], *factor[AT_ONCE];
    int vectors, n_pixels[AT_ONCE];
} tile_sums;

typedef struct {
    const real *x[AT_ONCE]; /* in the first plane */
    const real *w;          /* [tap][input][w, w+ if dual][output] */
    const int32_t *terms;   /* [tap][input]: from there to the x of a term */
    int64_t n_terms;
    tile_sums *to, *before;      /* to: sums of this tile; before: the tile before, to be finished meanwhile */
    const usual_epilogue *usual; /* the epilogue of `before` */
    int64_t n_before;            /* its vectors of sums */
} pixel_tile;

ALWAYS_INLINE void finish_vector(const pixel_tile *t, int64_t q)
{
    const usual_epilogue *e = t->usual;
    vec y = load(t->before->y[q]), d = e->dual ? load(t->before->d[q]) : y;
    y += splat(e->bias[q]);
    y = e->relu ? vec_positive(y) : y;
    store(t->before->y[q], y);
    if (!e->gate)
        return;
    d += splat(e->bias_d[q]);
    store(t->before->d[q],
          e->plain ? vec_quotient(y, d) : vec_quotient(e->coefficient * y, vec_stabilised(d, e->stabilizer)));
}

/* `vectors`, `outputs` and `dual` are constants wherever this is inlined. */
ALWAYS_INLINE void run_tile(const pixel_tile *t, const int vectors, const int outputs, const int dual)
{
    const int64_t n_terms = t->n_terms, n_before = t->n_before;
    const int32_t *terms = t->terms;
    const real *w = t->w, *from[AT_ONCE];
    int64_t q = 0;
    vec a[2][AT_ONCE][MOST_OUTPUTS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        from[v] = t->x[v];
#pragma GCC unroll 2
    for (int b = 0; b <= dual; b++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
            for (int j = 0; j < outputs; j++)
                a[b][v][j] = (vec){0};
    for (int64_t k = 0; k < n_terms; k++, w += outputs * (1 + dual)) {
        vec x[AT_ONCE];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            x[v] = load(from[v] + terms[k]);
#pragma GCC unroll 2
        for (int b = 0; b <= dual; b++)
#pragma GCC unroll 8
            for (int j = 0; j < outputs; j++) {
                vec wj = splat(w[b * outputs + j]);
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++)
                    a[b][v][j] += x[v] * wj;
            }
        if (BESIDE && q < n_before)
            finish_vector(t, q++);
    }
    for (; q < n_before; q++)
        finish_vector(t, q);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int j = 0; j < outputs; j++)
#pragma GCC unroll 2
            for (int b = 0; b <= dual; b++)
                store(b ? t->to->d[v * outputs + j] : t->to->y[v * outputs + j], a[b][v][j]);
}

typedef void (*tile_function)(const pixel_tile *t);

#define TILES(n)                                                                                                       \
    static void vectors_##n(const pixel_tile *t) { run_tile(t, VECTORS_OF(n, 0), n, 0); }                              \
    static void vector_##n(const pixel_tile *t) { run_tile(t, 1, n, 0); }                                              \
    static void dual_vectors_##n(const pixel_tile *t) { run_tile(t, VECTORS_OF(n, 1) ? VECTORS_OF(n, 1) : 1, n, 1); }  \
    static void dual_vector_##n(const pixel_tile *t) { run_tile(t, 1, n, 1); }
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)

#define ENTRY(n)                                                                                                       \
    {                                                                                                                  \
        {vector_##n, vectors_##n}, { dual_vector_##n, dual_vectors_##n }                                               \
    }
static const tile_function TILE_FUNCTIONS[][2][2] = {{{0}},    ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4),
                                                     ENTRY(5), ENTRY(6), ENTRY(7), ENTRY(8)};

#endif
