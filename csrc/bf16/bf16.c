/* bf16.c: dense tap layers in bfloat16 components (components.h), on matrix units or dot products.
 *
 *     sum[p,j] = sum_k sum_i x[p + tap_k, i] wm(w[k,i,j])
 *
 * A panel of pixels is packed once, as components, and stays in the second-level cache.  The outputs pass it two blocks
 * at a time (one block, if w+ stands beside w): their weights are mapped and packed, then multiplied with every tile of
 * pixels.  If the cache cannot hold all channels, they are taken in groups, and sums are kept in memory between groups.
 * Each sum is one chain over (chunk of channels, tap), which does not depend on its tile, its panel or the batch.
 */
#include "blocking.h"
#ifdef __AMX_BF16__
#include "tiles_amx.h"
#else
#include "tiles_dot.h"
#endif

enum {
    PIXELS_BYTES = 640 << 10, /* of a panel, split */
    SLACK_BYTES = 64 << 10,   /* a tile may read, and ignore, pixels beyond its panel */
    WEIGHTS_BYTES = 320 << 10,
    SUMS_BYTES = 768 << 10,
    WANTED_WEIGHTS = 256 << 10,
    MOST_CHUNKS = 36, /* at once, in single components */
    MOST_UNITS = 16,  /* for which a panel is split once */
    MOST_TILES = 128,
    MOST_TAPS = 128,
    LEAST_CHANNELS = 16,
    LEAST_PIXELS = 8, /* of a sample */
    LEAST_PAIRS = 6,  /* of tiles in a panel, while there is a choice */
    ITEMS_PER_THREAD = 2,
    PAD = 16, /* floats between rows of sums, lest they fall into the same sets of the first cache */
};

ALWAYS_INLINE int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a < 0 ? -a : a;
}

static void find_runs(bf16_job *job)
{
    const dtd_step *s = &job->dense.s;
    const int64_t *shape = s->out.shape, *stride = s->x.stride;
    const int64_t rows = shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H];
    job->stride = stride[AXIS_W];
    job->width = job->pitch = shape[AXIS_W];
    job->run_rows = 1;
    if (job->gathered)
        job->run_rows = rows;
    else if (shape[AXIS_H] > 1 && stride[AXIS_W] > 0 && stride[AXIS_H] % stride[AXIS_W] == 0) {
        int64_t pitch = stride[AXIS_H] / stride[AXIS_W], length = (shape[AXIS_H] - 1) * pitch + job->width;
        if (ceil_div(length, TILE) < shape[AXIS_H] * ceil_div(job->width, TILE)) {
            job->pitch = pitch;
            job->run_rows = shape[AXIS_H];
        }
    }
    job->run_length = (job->run_rows - 1) * job->pitch + job->width;
    job->run_tiles = ceil_div(job->run_length, TILE);
    job->tiles = rows / job->run_rows * job->run_tiles;
}

/* Whether the pixels of x lie at equal distances that hold all their channels. */
static int find_places(bf16_job *job)
{
    const dtd_step *s = &job->dense.s;
    const int64_t *taps = table(&s->taps, job->dense.bases), *shape = s->out.shape, *stride = s->x.stride;
    int64_t place = 0;
    for (int a = AXIS_N; a <= AXIS_W; a++)
        if (a != AXIS_C && (shape[a] > 1 || a == AXIS_N))
            place = gcd(place, stride[a]);
    job->tap_low = job->tap_high = taps[0];
    for (int k = 0; k < s->n_taps; k++) {
        place = gcd(place, taps[k] - taps[0]);
        job->tap_low = min64(job->tap_low, taps[k]);
        job->tap_high = max64(job->tap_high, taps[k]);
    }
    job->place = place;
    return place >= job->dense.c_in;
}

/* Whether any two tiles that follow one another in a sample fit the cache, with `chunks` chunks of channels; if two of
 * different samples do not (other readers of x may want wide frames), samples are sections of their own. */
static int find_sections(bf16_job *job, int64_t chunks)
{
    const int64_t *shape = job->dense.s.out.shape, *stride = job->dense.s.x.stride;
    job->sections = 1;
    if (job->gathered)
        return 1;
    const int64_t rows = job->run_rows == 1 ? shape[AXIS_H] : 1;
    const int64_t along = (job->run_tiles - 1) * TILE * job->stride; /* from a run's first tile to its last */
    const int64_t plane = (rows - 1) * stride[AXIS_H] + along, sample = (shape[AXIS_D] - 1) * stride[AXIS_D] + plane;
    int64_t step = TILE * job->stride;
    if (rows > 1)
        step = max64(step, stride[AXIS_H] - along);
    if (shape[AXIS_D] > 1)
        step = max64(step, stride[AXIS_D] - plane);
    const int64_t most = PIXELS_BYTES / (chunks * job->components * CHUNK_BYTES); /* pixels */
    const int64_t tile = TILE * job->stride + job->tap_high - job->tap_low;
    if (shape[AXIS_N] > 1 && (stride[AXIS_N] - sample + tile) / job->place + 1 > most)
        job->sections = shape[AXIS_N];
    return (step + tile) / job->place + 1 <= most;
}

/* Whether this step suits tiles; nothing here depends on the batch. */
static int suits(bf16_job *job)
{
    const dtd_step *s = &job->dense.s;
    const int64_t *shape = s->out.shape;
    if (s->groups > 1 || s->n_taps < 1 || job->dense.c_in < LEAST_CHANNELS || NAME(inner_product_suits)(&job->dense))
        return 0;
    if (2 * job->dense.c_out <= DTD_BLOCK) /* mostly empty tiles */
        return 0;
    if (shape[AXIS_D] * shape[AXIS_H] * shape[AXIS_W] < LEAST_PIXELS)
        return 0;
    job->gathered = s->n_taps == 1;
    job->place = 1;
    if (!job->gathered && !find_places(job))
        return 0;
    NAME(merge_pixels)(&job->dense.s);
    find_runs(job);
    job->chunks = ceil_div(job->dense.c_in, CHUNK);
    const int64_t weights = s->n_taps * job->components * 2 * HALF_BYTES; /* of a chunk */
    int64_t at_once = max64(1, min64(WANTED_WEIGHTS / weights, MOST_CHUNKS / job->components));
    job->chunk_groups = ceil_div(job->chunks, at_once);
    at_once = ceil_div(job->chunks, job->chunk_groups);
    return at_once * weights <= WEIGHTS_BYTES && find_sections(job, at_once);
}

/* Pairs of tiles in a section. */
static int64_t section_pairs(const bf16_job *job) { return ceil_div(job->tiles / job->sections, 2); }

/* The first tile of a panel, numbered through the sections, and the one behind its last; panels are whole pairs but at
 * a section's end. */
static int64_t panel_start(const bf16_job *job, int64_t panel)
{
    return panel / job->panels * (job->tiles / job->sections) +
           2 * (section_pairs(job) * (panel % job->panels) / job->panels);
}

static int64_t panel_end(const bf16_job *job, int64_t panel)
{
    int64_t end = panel / job->panels * (job->tiles / job->sections) +
                  2 * (section_pairs(job) * (panel % job->panels + 1) / job->panels);
    return min64(end, (panel / job->panels + 1) * (job->tiles / job->sections));
}

/* Slabs and groups of units that fit the caches, as few as keep the threads busy. */
static void divide_work(bf16_job *job, int n_threads)
{
    const int64_t chunk_bytes = ceil_div(job->chunks, job->chunk_groups) * job->components * CHUNK_BYTES,
                  pairs = section_pairs(job);
    const int64_t items = n_threads > 1 ? (int64_t)n_threads * ITEMS_PER_THREAD : 1;
    job->unit_groups = ceil_div(job->units, MOST_UNITS);
    const int64_t row_bytes = (ceil_div(job->units, job->unit_groups) * 2 * DTD_BLOCK + PAD) * (int64_t)sizeof(float);
    int64_t most = max64(1, min64(MOST_TILES, SUMS_BYTES / (TILE * row_bytes)) / 2);
    for (;; most = max64(1, most * 3 / 4)) {
        job->panels = ceil_div(pairs, most);
        int64_t widest = 0;
        for (int64_t i = 0; i < job->panels; i++)
            widest = max64(widest, panel_pixels(job, panel_start(job, i), panel_end(job, i)));
        if (most == 1 || widest * chunk_bytes <= PIXELS_BYTES)
            break;
    }
    while (job->sections * job->panels * job->unit_groups < items && 2 * job->panels * LEAST_PAIRS <= pairs)
        job->panels *= 2;
    if (job->sections == 1 && job->panels < pairs && job->panels < 8 * n_threads) /* as much for every thread */
        job->panels = min64(pairs, ceil_div(job->panels, n_threads) * n_threads);
    if (job->sections * job->panels * job->unit_groups < items)
        job->unit_groups = max64(job->unit_groups, min64(job->units, ceil_div(items, job->sections * job->panels)));
}

/* -------------------------------------------------------------------------------------------------------- epilogues */

/* Sums of a panel's pixels through the epilogue: rows of y, terms `beside` floats behind it. */
static void finish_panel(const bf16_job *job, int64_t first, int64_t last, int64_t c, int64_t n_channels, float *sums,
                         int64_t row, int64_t beside)
{
    const dtd_step *s = &job->dense.s;
    const int64_t *shape = s->out.shape;
    for (int64_t tile = first; tile < last;) {
        const int64_t run = tile / job->run_tiles, start = tile % job->run_tiles * TILE,
                      tiles = min64(last - tile, job->run_tiles - tile % job->run_tiles);
        const int64_t end = min64(start + tiles * TILE, job->run_length);
        float *at = sums + (tile - first) * TILE * row;
        for (int64_t f = start; f < end;) {
            const int64_t w = f % job->pitch, r = run * job->run_rows + f / job->pitch;
            if (w >= job->width) {
                f += job->pitch - w;
                continue;
            }
            dtd_site site = {.n_pixels = (int)min64(end - f, job->width - w), .n_channels = (int)n_channels};
            const int64_t h = r % shape[AXIS_H], d = r / shape[AXIS_H] % shape[AXIS_D],
                          n = r / shape[AXIS_H] / shape[AXIS_D];
            NAME(locate)(&site, s, job->dense.bases, n, c, d, h, w);
            float *sum = at + (f - start) * row;
            if (job->dense.neuron)
                NAME(finish_neuron_rows)(s, &site, sum, beside ? sum + beside : NULL, row);
            else
                NAME(finish_taps_rows)(s, &site, sum, row);
            f += site.n_pixels;
        }
        tile += tiles;
    }
}

/* ----------------------------------------------------------------------------------------------------------- driver */

static void run_bf16(void *context, int64_t first, int64_t last)
{
    const bf16_job *job = context;
    const dense_job *dense = &job->dense;
    const dtd_step *s = &dense->s;
    char *pixels = (char *)dense->bases[DTD_SCRATCH] + dtd_thread() * DTD_SCRATCH_BYTES;
    char *weights = pixels + PIXELS_BYTES + SLACK_BYTES;
    float *sums = (float *)(weights + WEIGHTS_BYTES);
    const int64_t *offsets = table(&s->taps, dense->bases);
    const int dual = dense->map == DUAL_MAP;
    const int64_t pixel = job->components * CHUNK_BYTES;
    int64_t taps[MOST_TAPS], places[MOST_TILES], packed_panel = -1;
    for (int k = 0; k < s->n_taps; k++)
        taps[k] = job->gathered ? 0 : (offsets[k] - job->tap_low) / job->place * pixel;
    bf16_tile t = {.pixel = job->gathered ? pixel : job->stride / job->place * pixel,
                   .taps = taps,
                   .n_taps = s->n_taps,
                   .w = weights};
    begin_tiles();
    for (int64_t item = first; item < last; item++) {
        const int64_t panel = item / job->unit_groups, group = item % job->unit_groups;
        const int64_t tile0 = panel_start(job, panel), tile1 = panel_end(job, panel);
        const int64_t unit0 = job->units * group / job->unit_groups,
                      unit1 = job->units * (group + 1) / job->unit_groups;
        const int64_t row = (unit1 - unit0) * 2 * DTD_BLOCK + PAD, beside = (unit1 - unit0) * DTD_BLOCK;
        t.row = row * (int64_t)sizeof(float);
        for (int64_t tile = tile0; tile < tile1; tile++)
            places[tile - tile0] =
                pixel * (job->gathered ? (tile - tile0) * TILE
                                       : (tile_offset(job, tile) - tile_offset(job, tile0)) / job->place);
        for (int64_t g = 0; g < job->chunk_groups; g++) {
            const int64_t chunk0 = job->chunks * g / job->chunk_groups,
                          chunk1 = job->chunks * (g + 1) / job->chunk_groups;
            if (job->chunk_groups > 1 || panel != packed_panel)
                t.chunk = UNIT(pack_panel)(job, tile0, tile1, chunk0, chunk1 - chunk0, pixels);
            packed_panel = panel;
            t.n_chunks = chunk1 - chunk0;
            t.resume = g > 0;
            for (int64_t unit = unit0; unit < unit1; unit++) {
                const int halves = dual || unit * 2 + 1 < dense->blocks ? 2 : 1;
                float *sum = sums + (unit - unit0) * job->unit_blocks * DTD_BLOCK;
                UNIT(pack_weights)(job, unit, chunk0, chunk1 - chunk0, weights);
                t.ahead_lines = 0;
                if (unit + 1 < unit1)
                    UNIT(prefetch_weights)(job, unit + 1, chunk0, chunk1 - chunk0, ceil_div(tile1 - tile0, 2), &t);
                for (int64_t tile = tile0; tile < tile1; tile += 2) {
                    const int64_t i = tile - tile0;
                    t.x[0] = pixels + places[i];
                    t.x[1] = pixels + places[min64(i + 1, tile1 - tile0 - 1)];
                    t.sum[0] = sum + i * TILE * row;
                    t.sum[1] = t.sum[0] + (dual ? beside : DTD_BLOCK);
                    multiply(&t, tile + 1 < tile1 ? 2 : 1, halves, job->components_y, job->components_terms);
                }
            }
        }
        const int64_t c = unit0 * job->unit_blocks * DTD_BLOCK,
                      end = min64(unit1 * job->unit_blocks * DTD_BLOCK, dense->c_out);
        finish_panel(job, tile0, tile1, c, end - c, sums, row, dual ? beside : 0);
    }
    end_tiles();
}

/* The layer as bfloat16 components, if it suits tiles. */
static int find_job(bf16_job *job, const dtd_step *s, void *const *bases, int neuron)
{
    *job = (bf16_job){.dense = NAME(dense_job)(s, bases, neuron)};
    const int dual = job->dense.map == DUAL_MAP;
    /* in bfloat16, y alone takes its operands in two components: it cancels, and a ReLU that falls the other way costs
     * more than all rounding */
    job->components_y = s->precision != DTD_BFLOAT16 ? 3 : neuron ? 2 : 1;
    job->components_terms = s->precision == DTD_FLOAT32 ? 3 : 1;
    if (!dual) /* terms are y's own, if any */
        job->components_terms = job->components_y;
    job->components = job->components_y;
    job->unit_blocks = dual ? 1 : 2;
    job->units = ceil_div(job->dense.blocks, job->unit_blocks);
    if (job->components > MOST_COMPONENTS || job->dense.pair)
        return 0;
    return bases[DTD_SCRATCH] && s->n_taps <= MOST_TAPS && suits(job);
}

static int bf16(const dtd_step *s, void *const *bases, int n_threads, int neuron)
{
    bf16_job job;
    if (!find_job(&job, s, bases, neuron))
        return 0;
    divide_work(&job, n_threads);
    dtd_parallel(n_threads, job.sections * job.panels * job.unit_groups, 1, run_bf16, &job);
    return 1;
}

void UNIT(neuron_dense)(const dtd_step *s, void *const *bases, int n_threads)
{
    if (!bf16(s, bases, n_threads, 1))
        NAME(neuron_dense)(s, bases, n_threads);
}

void UNIT(taps_dense)(const dtd_step *s, void *const *bases, int n_threads)
{
    if (!bf16(s, bases, n_threads, 0))
        NAME(taps_dense)(s, bases, n_threads);
}

/* bf16x3 is float32 from three components of each operand; bf16 is a narrow precision. */
const char *UNIT(dense_body)(const dtd_step *s, void *const *bases, int choice)
{
    bf16_job job;
    if (!find_job(&job, s, bases, s->op == DTD_NEURON_DENSE))
        return NAME(dense_body)(s, bases, choice);
    return choice > DTD_BY_SHAPE ? NULL : s->precision == DTD_FLOAT32 ? "bf16x3" : "bf16";
}
