/* matmul.c: products of two computed matrices, one pair per (n, c, d).
 *
 *     out[i,j] (+)= coefficient · multiplier(m[i,j]) · sum_k x[i,k] other[k,j]
 *
 * A register tile holds some rows i by one or two blocks of columns j, as in direct.c.  Blocks of `other` are packed as
 * panels [k][DTD_BLOCK]; x is read with one broadcast per row, in place where k or i is its fastest axis.  Each sum is
 * one chain over k, in every tile: its bits depend on x and `other` alone.
 */
#include "base/epilogue.h"
#include "base/transpose.h"

enum {
    PANELS = (1 << 16) / sizeof(real), /* numbers of the panels at hand, in a core's second cache */
    DEPTH = PANELS / (2 * DTD_BLOCK),  /* most terms between loads and stores of the sums */
    WAITING = 4,                       /* tiles whose sums wait for their next terms, where there are more */
    FEW = PIXELS / 2,                  /* rows too few to pack for */
    SUMS = DTD_TILE_PIXELS * DTD_BLOCK,
};

typedef struct {
    const real *x, *w;
    int64_t row, term;       /* strides of x: rows where terms are side by side, else terms */
    int64_t w_term, w_block; /* strides of w */
    int64_t n;               /* terms */
    int begin;               /* these are the first */
    real *sum;
    int64_t sum_row, sum_block; /* its strides */
} matmul_tile;

/* Of a row and vector, among the sums. */
ALWAYS_INLINE int64_t place(const matmul_tile *t, int r, int v)
{
    return v * VL / DTD_BLOCK * t->sum_block + r * t->sum_row + v * VL % DTD_BLOCK;
}

/* One register tile; `rows`, `vectors` and `across` (rows of x are side by side, else terms) are constants wherever
 * this is inlined. */
ALWAYS_INLINE void run_tile(const matmul_tile *t, const int rows, const int vectors, const int across, int lane)
{
    const int64_t row = t->row, term = t->term, w_term = t->w_term, w_block = t->w_block;
    const real *x = t->x, *w = t->w + lane;
    real *const sum = t->sum + lane;
    /* registers: every index below is a constant once the loops are unrolled */
    vec a[PIXELS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            a[r][v] = (vec){0};
    if (!t->begin)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                a[r][v] = load(sum + place(t, r, v));
    for (int64_t k = 0; k < t->n; k++, w += w_term) {
        vec q[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            q[v] = load(w + v * VL / DTD_BLOCK * w_block + v * VL % DTD_BLOCK);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vec xv = splat(across ? x[r] : x[r * row]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                a[r][v] += xv * q[v];
        }
        x += across ? term : 1;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            store(sum + place(t, r, v), a[r][v]);
}

/* Every number of rows up to the tile's, so that a matrix of any height divides into tiles of nearly equal size. */
ALWAYS_INLINE void run_rows(const matmul_tile *t, int rows, const int vectors, const int across, int lane)
{
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        if (n <= PIXELS)                                                                                               \
            run_tile(t, n, vectors, across, lane);                                                                     \
        break;
    switch (rows) {
        CASE(1)
        CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
    }
#undef CASE
}

/* Tiles of one block, in passes over its vectors, and of a pair of blocks. */
#define TILES(name, across)                                                                                            \
    static void block_##name(const matmul_tile *t, int rows)                                                           \
    {                                                                                                                  \
        for (int lane = 0; lane < DTD_BLOCK; lane += SINGLE_VECTORS * VL)                                              \
            run_rows(t, rows, SINGLE_VECTORS, across, lane);                                                           \
    }                                                                                                                  \
    static void pair_##name(const matmul_tile *t, int rows)                                                            \
    {                                                                                                                  \
        if (PAIRS)                                                                                                     \
            run_rows(t, rows, 2, across, 0);                                                                           \
    }

TILES(along, 0)
TILES(across, 1)

static void (*const TILE_FUNCTIONS[][2])(const matmul_tile *t, int rows) = {{block_along, pair_along},
                                                                            {block_across, pair_across}};

/* ---------------------------------------------------------------------------------------------------------- packing */

/* to[k][j] = from[k·down + j·right], 0 beyond the columns */
static void pack_panel(const real *from, int64_t down, int64_t right, int64_t n, int64_t columns, real *to)
{
    if (right == 1 && columns == DTD_BLOCK)
        for (int64_t k = 0; k < n; k++)
            memcpy(to + k * DTD_BLOCK, from + k * down, DTD_BLOCK * sizeof *to);
    else if (down == 1)
        for (int64_t j = 0; j < DTD_BLOCK; j += VL)
            for (int64_t k = 0; k < n; k += VL) {
                const int64_t lanes = min64(VL, n - k);
                vec v[VL];
                for (int l = 0; l < VL; l++)
                    v[l] = j + l >= columns ? (vec){0}
                           : lanes == VL    ? load(from + (j + l) * right + k)
                                            : load_some(from + (j + l) * right + k, lanes);
                transpose(v);
                for (int l = 0; l < lanes; l++)
                    store(to + (k + l) * DTD_BLOCK + j, v[l]);
            }
    else
        for (int64_t k = 0; k < n; k++)
            for (int64_t j = 0; j < DTD_BLOCK; j++)
                to[k * DTD_BLOCK + j] = j < columns ? from[k * down + j * right] : 0;
}

/* to[k][r] = from[r·row + k·term] */
static void pack_rows(const real *from, int64_t row, int64_t term, int64_t n, int rows, real *to)
{
    for (int64_t k = 0; k < n; k++, from += term, to += DTD_BLOCK)
        if (row == 1) {
            __builtin_prefetch(from + 2 * PIXELS); /* terms may be pages apart */
            for (int r = 0; r < rows; r += VL)
                store(to + r, load_some(from + r, min64(VL, rows - r)));
        } else
            for (int r = 0; r < rows; r++)
                to[r] = from[r * row];
}

/* ----------------------------------------------------------------------------------------------------------- driver */

typedef struct {
    const dtd_step *s;
    void *const *bases;
    int64_t rows, columns, terms;
    int64_t tiles, blocks; /* of rows, of columns */
    int64_t span, group;   /* blocks of a register tile, blocks whose panels are at hand */
    int direct;            /* sums are results */
} matmul_job;

/* The matrices of one (n, c, d). */
typedef struct {
    real *out, *x, *other, *m;
} matrices;

static real *start_of(const matmul_job *job, const dtd_view *v, const int64_t *p)
{
    real *start = reals(v, job->bases);
    return start ? start + offset_of(v, p) + (sample_of(job->s, v, p[AXIS_N]) - p[AXIS_N]) * v->stride[AXIS_N] : NULL;
}

static matrices matrices_of(const matmul_job *job, int64_t batch)
{
    const dtd_step *s = job->s;
    const int64_t *shape = s->out.shape, c_d = shape[AXIS_C] * shape[AXIS_D];
    const int64_t p[6] = {batch / c_d, batch % c_d / shape[AXIS_D], batch % shape[AXIS_D]};
    return (matrices){start_of(job, &s->out, p), start_of(job, &s->x, p), start_of(job, &s->other, p),
                      start_of(job, &s->m, p)};
}

/* The sums of one block: rows from `row` on. */
static void finish(const matmul_job *job, const matrices *at, int64_t row, int rows, int64_t block, real *sum)
{
    const dtd_step *s = job->s;
    const int64_t column = block * DTD_BLOCK, *out = s->out.stride, *m = s->m.stride;
    const real coefficient = s->coefficient;
    const dtd_site site = {.out = {at->out + row * out[AXIS_H] + column * out[AXIS_W], out[AXIS_H], out[AXIS_W]},
                           .m = {at->m ? at->m + row * m[AXIS_H] + column * m[AXIS_W] : NULL, m[AXIS_H], m[AXIS_W]},
                           .n_pixels = rows,
                           .n_channels = (int)min64(DTD_BLOCK, job->columns - column)};
    if (coefficient != 1)
        for (int i = 0; i < rows * DTD_BLOCK; i++)
            sum[i] *= coefficient;
    NAME(finish_taps)(s, &site, sum);
}

/* Tiles first .. last-1 of the rows of one product. */
static void run_product(const matmul_job *job, const matrices *at, int64_t first, int64_t last)
{
    const int64_t *x = job->s->x.stride, *other = job->s->other.stride, *out = job->s->out.stride;
    const int64_t rows = job->rows * last / job->tiles - job->rows * first / job->tiles;
    const int deep = job->terms > DEPTH, in_place = rows <= FEW && other[AXIS_W] == 1;
    const int across = x[AXIS_W] != 1, packed = across && (x[AXIS_H] != 1 || job->blocks > job->span);
    _Alignas(64) real panels[PANELS], x_rows[DEPTH * DTD_BLOCK], sums[WAITING][2][SUMS];
    for (int64_t group = 0; group < job->blocks; group += job->group) {
        const int64_t end = min64(job->blocks, group + job->group);
        for (int64_t from = first; from < last; from += deep ? WAITING : last - first)
            for (int64_t k = 0; k == 0 || k < job->terms; k += DEPTH) {
                const int64_t n = min64(DEPTH, job->terms - k), until = deep ? min64(last, from + WAITING) : last;
                const real *w = at->other + k * other[AXIS_H];
                const int64_t whole = in_place ? job->columns / (job->span * DTD_BLOCK) * job->span : 0;
                for (int64_t b = max64(group, whole); b < end; b++)
                    pack_panel(w + b * DTD_BLOCK * other[AXIS_W], other[AXIS_H], other[AXIS_W], n,
                               min64(DTD_BLOCK, job->columns - b * DTD_BLOCK), panels + (b - group) * n * DTD_BLOCK);
                for (int64_t t = from; t < until; t++) {
                    const int64_t row = job->rows * t / job->tiles;
                    const int n_rows = (int)(job->rows * (t + 1) / job->tiles - row);
                    matmul_tile tile = {.x = at->x + row * x[AXIS_H] + k * x[AXIS_W],
                                        .row = x[AXIS_H],
                                        .term = x[AXIS_W],
                                        .n = n,
                                        .begin = k == 0};
                    if (packed) {
                        pack_rows(tile.x, x[AXIS_H], x[AXIS_W], n, n_rows, x_rows);
                        tile.x = x_rows;
                        tile.term = DTD_BLOCK;
                    }
                    for (int64_t b = group; b < end; b += job->span) {
                        const int64_t n_blocks = min64(job->span, end - b);
                        tile.w = b < whole ? w + b * DTD_BLOCK : panels + (b - group) * n * DTD_BLOCK;
                        tile.w_term = b < whole ? other[AXIS_H] : DTD_BLOCK;
                        tile.w_block = b < whole ? DTD_BLOCK : n * DTD_BLOCK;
                        const int direct = job->direct && (b + n_blocks) * DTD_BLOCK <= job->columns;
                        tile.sum = direct ? at->out + row * out[AXIS_H] + b * DTD_BLOCK
                                   : deep ? sums[t - from][b - group]
                                          : sums[0][0];
                        tile.sum_row = direct ? out[AXIS_H] : DTD_BLOCK;
                        tile.sum_block = direct ? DTD_BLOCK : SUMS;
                        TILE_FUNCTIONS[across][n_blocks - 1](&tile, n_rows);
                        for (int64_t i = 0; i < n_blocks && !direct && k + n == job->terms; i++)
                            finish(job, at, row, n_rows, b + i, tile.sum + i * SUMS);
                    }
                }
            }
    }
}

/* Items are tiles of rows. */
static void run_matmul(void *context, int64_t first, int64_t last)
{
    const matmul_job *job = context;
    while (first < last) {
        const int64_t batch = first / job->tiles, end = min64(last, (batch + 1) * job->tiles);
        const matrices at = matrices_of(job, batch);
        run_product(job, &at, first - batch * job->tiles, end - batch * job->tiles);
        first = end;
    }
}

void NAME(matmul)(const dtd_step *s, void *const *bases, int n_threads)
{
    const int64_t *shape = s->out.shape;
    matmul_job job = {.s = s,
                      .bases = bases,
                      .rows = shape[AXIS_H],
                      .columns = shape[AXIS_W],
                      .terms = s->x.shape[AXIS_W],
                      .direct = s->out.stride[AXIS_W] == 1 && s->coefficient == 1 && s->multiplier == DTD_M_NONE &&
                                !s->accumulate,
                      .tiles = ceil_div(shape[AXIS_H], PIXELS),
                      .blocks = ceil_div(shape[AXIS_W], DTD_BLOCK)};
    job.span = PAIRS && job.blocks > 1 ? 2 : 1;
    job.group = PANELS / DTD_BLOCK / max64(1, min64(job.terms, DEPTH)) / job.span * job.span;
    const int64_t items = shape[AXIS_N] * shape[AXIS_C] * shape[AXIS_D] * job.tiles;
    /* few ranges, since each packs its panels; multiply-adds of an item */
    const int64_t share = ceil_div(items, 4 * (int64_t)n_threads),
                  work = max64(1, job.terms * job.columns * min64(job.rows, PIXELS));
    dtd_parallel(n_threads, items, max64(min64(job.tiles, share), ceil_div(1 << 18, work)), run_matmul, &job);
}
