/* channels_first.c: dense tap layers with few outputs, on x transposed to channels first.
 *
 *     sum[p,j] = sum_k sum_i x[p + tap_k, i] wm(w[k,i,j]),    j < c_out <= MOST_OUTPUTS
 *
 * A vector holds VL pixels of a row, since so few outputs would leave most of a vector of outputs empty.  An item is
 * some rows of one image.  Their x is transposed to channels first, so that a tap is a distance within the plane of a
 * channel. Each sum is one chain over (k, i), as in direct.c, to the bit.
 */
#include "dense.h"
#include "channels_first_tiles.h"
#include "channels_first_layout.h"
#include "single_output_tiles.h"

#include <string.h>

enum {
    ROW_SUMS = (1 << 14) / sizeof(real), /* sums of an item of a single output, on the stack */
    PLANES = (1 << 16) / sizeof(real),   /* elements of x, channels first, on the stack */
    WEIGHTS = (1 << 16) / sizeof(real),  /* packed weights, on the stack */
    ITEMS_PER_THREAD = 4,
    TILE = DTD_TILE_PIXELS * DTD_BLOCK,
};

typedef struct {
    const dense_job *dense;
    /* elements of a pixel, pixels from row to row; of the first tap, from it to the last */
    int64_t pixel, pitch, first, reach;
    int64_t n_rows, row_items; /* rows that an item may have, items of an image */
    int64_t segments;          /* of a row, at most VL pixels each */
    /* of one output's kernel, and pixels from tap to tap; height 0: not by single_output_tiles.h */
    int64_t height, width, dx, dy;
} channels_first_job;

/* Rows h .. h+rows-1 of an image. */
typedef struct {
    const real *planes;
    int64_t n, d, h, rows, plane; /* elements of a plane */
} slice;

/* wm(w) as [tap][input][w, w+ if dual][output] */
static void pack_weights(const dense_job *job, real *to)
{
    const dtd_step *s = &job->s;
    const real *w = vector(&s->weight, job->bases);
    const int dual = job->map == DUAL_MAP;
    for (int64_t ki = 0; ki < s->n_taps * job->c_in; ki++, w += DTD_BLOCK)
        for (int b = 0; b <= dual; b++)
            for (int64_t j = 0; j < job->c_out; j += VL) {
                const int64_t n = min64(VL, job->c_out - j);
                store_some(to, map_any(b ? DTD_W_POSITIVE : dual ? DTD_W : job->map, load(w + j), s->gamma), n);
                to += n;
            }
}

/* The same of one output, [row of the kernel][column][input], as [column][input][row] */
static void weights_by_column(const channels_first_job *p, const real *w, real *to)
{
    const int64_t row = p->width * p->dense->c_in;
    for (int64_t k = 0; k < p->height; k++)
        for (int64_t i = 0; i < row; i++)
            to[i * p->height + k] = w[k * row + i];
}

/* Whether the epilogue is one of the usual ones, which channels_first_tiles.h computes. */
static int has_usual_epilogue(const dense_job *job)
{
    const dtd_step *s = &job->s;
    if (present(&s->scale) || present(&s->y_prev) || present(&s->terms) || s->out.stride[AXIS_C] != 1 ||
        (present(&s->factor) && s->factor.stride[AXIS_C] != 1))
        return 0;
    if (!job->neuron)
        return s->multiplier == DTD_M_NONE && !s->accumulate && job->c_out > 1;
    return (s->activation == DTD_IDENTITY || s->activation == DTD_RELU) &&
           (s->factor_kind == DTD_F_NONE || s->factor_kind == DTD_F_GATE) && s->select == DTD_ANY_SIGN;
}

static usual_epilogue usual_epilogue_of(const dense_job *job)
{
    const dtd_step *s = &job->s;
    const real *bias = vector(&s->bias, job->bases), *bias_d = vector(&s->bias_d, job->bases);
    usual_epilogue e = {.dual = job->map == DUAL_MAP,
                        .relu = job->neuron && s->activation == DTD_RELU,
                        .gate = job->neuron && s->factor_kind == DTD_F_GATE,
                        .plain = s->coefficient == 1 && s->stabilizer == 0,
                        .coefficient = s->coefficient,
                        .stabilizer = s->stabilizer};
    for (int64_t q = 0; q < SUMS && job->neuron; q++) {
        e.bias[q] = bias ? bias[q % job->c_out] + 0 : 0; /* -0 becomes 0 here, and so do sums of -0, as in direct.c */
        e.bias_d[q] = bias_d ? bias_d[q % job->c_out] + 0 : 0;
    }
    return e;
}

static void store_sums(const dense_job *job, int gate, tile_sums *sums)
{
    const dtd_step *s = &job->s;
    const int n = (int)job->c_out;
    for (int v = 0; v < sums->vectors; v++) {
        store_channels_last(sums->y + v * n, sums->out[v], s->out.stride[AXIS_W], sums->n_pixels[v], n);
        if (gate)
            store_channels_last(sums->d + v * n, sums->factor[v], s->factor.stride[AXIS_W], sums->n_pixels[v], n);
    }
    sums->vectors = 0;
}

static void swap_axes(dtd_strip *strip)
{
    int64_t pixel = strip->pixel;
    strip->pixel = strip->channel;
    strip->channel = pixel;
}

static void rows_as_pixels(dtd_strip *strip, const dtd_view *v)
{
    strip->channel = strip->pixel;
    strip->pixel = v->stride[AXIS_H];
}

/* The sums of some pixels, [output][VL], through any epilogue, which computes all lanes of the tiles.  -0 becomes 0, as
 * in direct.c. */
static void finish(const dense_job *job, dtd_site *site, real (*y)[VL], real (*d)[VL], real (*tiles)[TILE])
{
    const dtd_step *s = &job->s;
    if (!job->neuron && job->c_out == 1) { /* pixels as the channels of one */
        swap_axes(&site->out), swap_axes(&site->m), swap_axes(&site->scale);
        site->n_channels = site->n_pixels;
        site->n_pixels = 1;
        store(tiles[0], load(y[0]) + splat(0));
        NAME(finish_taps)(s, site, tiles[0]);
        return;
    }
    for (int p = 0; p < site->n_pixels; p++)
        for (int64_t j = 0; j < job->c_out; j++) {
            tiles[0][p * DTD_BLOCK + j] = y[j][p] + 0;
            if (s->dual)
                tiles[1][p * DTD_BLOCK + j] = d[j][p] + 0;
        }
    if (job->neuron)
        NAME(finish_neuron)(s, site, tiles[0], s->dual ? tiles[1] : NULL);
    else
        NAME(finish_taps)(s, site, tiles[0]);
}

/* A slice by tiles of all outputs; where the epilogue is a usual one, the last of them remains to be finished. */
static void sum_tiles(const channels_first_job *p, pixel_tile *tile, const slice *of)
{
    const dense_job *job = p->dense;
    const dtd_step *s = &job->s;
    const int dual = job->map == DUAL_MAP, at_once = VECTORS_OF(job->c_out, dual), usual = has_usual_epilogue(job);
    const int64_t n_segments = of->rows * p->segments, width = s->out.shape[AXIS_W];
    dtd_site start = {.n_channels = (int)job->c_out}, sites[AT_ONCE];
    real tiles[2][TILE];
    if (!usual)
        memset(tiles, 0, sizeof tiles);
    NAME(locate)(&start, s, job->bases, of->n, 0, of->d, of->h, 0);
    for (int64_t segment = 0, h = 0, w = 0; segment < n_segments;) {
        const int many = segment + at_once <= n_segments, vectors = many ? at_once : 1;
        tile_sums *to = tile->to;
        for (int v = 0; v < vectors; v++, segment++) {
            to->n_pixels[v] = (int)min64(VL, width - w);
            tile->x[v] = of->planes + h * p->pitch + w;
            if (usual) {
                to->out[v] = start.out.at + h * s->out.stride[AXIS_H] + w * s->out.stride[AXIS_W];
                to->factor[v] = start.factor.at
                                    ? start.factor.at + h * s->factor.stride[AXIS_H] + w * s->factor.stride[AXIS_W]
                                    : NULL;
            } else {
                sites[v] = (dtd_site){.n_pixels = to->n_pixels[v], .n_channels = (int)job->c_out};
                NAME(locate)(&sites[v], s, job->bases, of->n, 0, of->d, of->h + h, w);
            }
            w += VL;
            if (w >= width)
                w = 0, h++;
        }
        TILE_FUNCTIONS[job->c_out][dual][many](tile);
        if (usual) {
            store_sums(job, tile->usual->gate, tile->before);
            tile->to = tile->before, tile->before = to;
            tile->n_before = vectors * job->c_out;
            to->vectors = vectors;
            continue;
        }
        for (int v = 0; v < vectors; v++)
            finish(job, &sites[v], to->y + v * job->c_out, to->d + v * job->c_out, tiles);
    }
}

/* A slice of a single output, by single_output_tiles.h. */
static void sum_single_output(const channels_first_job *p, const pixel_tile *tile, const slice *of)
{
    const dense_job *job = p->dense;
    const int64_t row = p->segments * VL, down = p->dy > 0;
    /* the epilogue may read a block from any multiple of one */
    real sums[ROW_SUMS + DTD_BLOCK] __attribute__((aligned(64)));
    for (int64_t i = 0; i < of->rows * row; i += VL)
        store(sums + i, (vec){0});
    /* rows of x, from the one that only the kernel's first row meets */
    for (int64_t t = 0; t < of->rows + p->height - 1; t++)
        for (int64_t k = max64(0, t - of->rows + 1), last = min64(p->height - 1, t), rows; k <= last; k += rows) {
            rows = min64(MOST_ROWS, last - k + 1);
            for (int64_t c = 0, columns; c < p->segments; c += columns) {
                columns = min64(COLUMNS, p->segments - c);
                row_tile tile_of_row = {.x = of->planes + tile->terms[0] + (down ? t : of->rows - 1 - t) * p->pitch +
                                             c * VL,
                                        .w = tile->w + k,
                                        .sum = sums + (down ? t - k : of->rows - 1 - t + k) * row + c * VL,
                                        .next = down ? -row : row,
                                        .height = p->height,
                                        .width = p->width,
                                        .dx = p->dx,
                                        .c_in = job->c_in,
                                        .plane = of->plane};
                ROW_TILE_FUNCTIONS[rows][columns - 1](&tile_of_row);
            }
        }
    for (int64_t i = 0; i < of->rows * row; i += VL)
        /* -0 becomes 0, as in direct.c */
        store(sums + i, load(sums + i) + splat(0));
    /* rows as pixels, pixels as channels */
    dtd_site site = {.n_pixels = (int)of->rows, .n_channels = (int)job->s.out.shape[AXIS_W]};
    NAME(locate)(&site, &job->s, job->bases, of->n, 0, of->d, of->h, 0);
    rows_as_pixels(&site.out, &job->s.out), rows_as_pixels(&site.m, &job->s.m),
        rows_as_pixels(&site.scale, &job->s.scale);
    NAME(finish_taps_rows)(&job->s, &site, sums, row);
}

/* [tap][input]: from a pixel in the first plane to the x of a term. */
static void list_terms(const channels_first_job *p, int64_t plane, int32_t *terms)
{
    const int64_t *taps = table(&p->dense->s.taps, p->dense->bases);
    for (int64_t k = 0; k < p->dense->s.n_taps; k++)
        for (int64_t i = 0; i < p->dense->c_in; i++)
            *terms++ = (int32_t)(taps[k] / p->pixel - p->first + i * plane);
}

static void run_channels_first(void *context, int64_t first, int64_t last)
{
    const channels_first_job *p = context;
    const dense_job *job = p->dense;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *stride = s->x.stride;
    real planes[PLANES] __attribute__((aligned(64))), weights[WEIGHTS];
    int32_t terms[WEIGHTS];
    tile_sums sums[2] __attribute__((aligned(64)));
    const usual_epilogue usual = usual_epilogue_of(job);
    pixel_tile tile = {.w = weights,
                       .terms = terms,
                       .n_terms = s->n_taps * job->c_in,
                       .to = &sums[0],
                       .before = &sums[1],
                       .usual = &usual};
    tile.before->vectors = 0;
    pack_weights(job, weights);
    if (p->height) {
        memcpy(planes, weights, (size_t)tile.n_terms * sizeof *weights);
        weights_by_column(p, planes, weights);
    }
    for (int64_t item = first, plane = 0; item < last; item++) {
        int64_t image = item / p->row_items, h = shape[AXIS_H] * (item % p->row_items) / p->row_items;
        int64_t end = shape[AXIS_H] * (item % p->row_items + 1) / p->row_items;
        const int64_t n_pixels = (end - h - 1) * p->pitch + shape[AXIS_W] + p->reach;
        const slice of = {planes, image / shape[AXIS_D], image % shape[AXIS_D], h, end - h, n_pixels + VL};
        const real *x = reals(&s->x, job->bases) + of.n * stride[AXIS_N] + of.d * stride[AXIS_D] + h * stride[AXIS_H];
        to_channels_first(x + p->first * p->pixel, p->pixel, job->c_in, n_pixels, of.plane, planes);
        if (plane != of.plane)
            list_terms(p, of.plane, terms);
        plane = of.plane;
        if (p->height)
            sum_single_output(p, &tile, &of);
        else
            sum_tiles(p, &tile, &of);
    }
    for (int64_t q = 0; q < tile.n_before; q++)
        finish_vector(&tile, q);
    store_sums(job, usual.gate, tile.before);
}

static int multiple(int64_t a, int64_t of) { return a % of == 0; }

/* Whether taps are rows of equal length, from one to the next as far as rows of x are. */
static void find_kernel(channels_first_job *p, const int64_t *taps, int64_t n)
{
    int64_t width = 1;
    while (width < n && taps[width] - taps[width - 1] == taps[1] - taps[0])
        width++;
    const int64_t dx = taps[1] - taps[0], dy = width < n ? taps[width] - taps[0] : 0, pitch = p->pitch * p->pixel;
    if (dy == 0 || (dy != pitch && dy != -pitch) || !multiple(n, width))
        return;
    for (int64_t k = 0; k < n; k++)
        if (taps[k] != taps[0] + k / width * dy + k % width * dx)
            return;
    p->height = n / width, p->width = width, p->dx = dx / p->pixel, p->dy = dy / p->pixel;
}

static channels_first_job channels_first_job_of(const dense_job *job, int n_threads)
{
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *taps = table(&s->taps, job->bases);
    channels_first_job p = {.dense = job, .pixel = s->x.stride[AXIS_W]};
    int64_t least = taps[0], most = taps[0];
    for (int64_t k = 1; k < s->n_taps; k++) {
        least = min64(least, taps[k]);
        most = max64(most, taps[k]);
    }
    p.pitch = s->x.stride[AXIS_H] / p.pixel;
    p.first = least / p.pixel;
    p.reach = most / p.pixel - p.first;
    p.segments = ceil_div(shape[AXIS_W], VL);
    int64_t room = PLANES / job->c_in - VL - shape[AXIS_W] - p.reach; /* for rows after the first */
    int64_t rows = room < 0 ? 0 : p.pitch > 0 ? 1 + room / p.pitch : shape[AXIS_H];
    int64_t fair = ceil_div(job->rows, (int64_t)n_threads * ITEMS_PER_THREAD);
    p.row_items = ceil_div(shape[AXIS_H], max64(1, min64(rows, fair)));
    p.n_rows = rows;
    if (job->c_out == 1 && !job->neuron && s->n_taps > 1 &&
        ceil_div(shape[AXIS_H], p.row_items) * p.segments * VL <= ROW_SUMS)
        find_kernel(&p, taps, s->n_taps);
    return p;
}

/* Whether vectors of pixels leave less empty than a block of outputs does, by more than the transpose costs. */
int NAME(channels_first_suits)(const dense_job *job)
{
    const dtd_step *s = &job->s;
    const int64_t *taps = table(&s->taps, job->bases), pixel = s->x.stride[AXIS_W], width = s->out.shape[AXIS_W];
    const int dual = job->map == DUAL_MAP;
    if (s->groups != 1 || job->c_out * (1 + dual) > SUMS || job->c_out > MOST_OUTPUTS ||
        s->n_taps * job->c_in * job->c_out * (1 + dual) > WEIGHTS || pixel < job->c_in ||
        !multiple(s->x.stride[AXIS_H], pixel) || s->x.stride[AXIS_H] < 0 ||
        s->n_taps * (DTD_BLOCK * width - job->c_out * ceil_div(width, VL) * VL) <= 2 * DTD_BLOCK * width)
        return 0;
    for (int64_t k = 0; k < s->n_taps; k++)
        if (!multiple(taps[k], pixel))
            return 0;
    return channels_first_job_of(job, 1).n_rows > 0;
}

void NAME(channels_first)(dense_job *job, int n_threads)
{
    channels_first_job p = channels_first_job_of(job, n_threads);
    const int64_t *shape = job->s.out.shape;
    /* of an item */
    int64_t work = max64(1, job->s.n_taps * job->c_in * job->c_out * shape[AXIS_W] * (shape[AXIS_H] / p.row_items));
    dtd_parallel(n_threads, shape[AXIS_N] * shape[AXIS_D] * p.row_items, ceil_div(1 << 17, work), run_channels_first,
                 &p);
}
