/* epilogue.c: from the sums of a product to results: scale, bias, activation, factor, multiplier (epilogue.h). */
#include "epilogue.h"
#include "rows/rows.h"
#include "simd.h"

enum { TILE = DTD_TILE_PIXELS * DTD_BLOCK };

/* ------------------------------------------------------------------------------- tiles in memory <-> [pixel][block] */

/* Lanes beyond n_channels become 0. */
static const real *load_tile(const dtd_strip *strip, const dtd_site *site, real *tile)
{
    if (!strip->at)
        return NULL;
    for (int p = 0; p < site->n_pixels; p++) {
        const real *from = strip->at + p * strip->pixel;
        real *to = tile + p * DTD_BLOCK;
        if (strip->channel == 1 && site->n_channels == DTD_BLOCK)
            memcpy(to, from, DTD_BLOCK * sizeof *to);
        else {
            memset(to, 0, DTD_BLOCK * sizeof *to);
            for (int c = 0; c < site->n_channels; c++)
                to[c] = from[c * strip->channel];
        }
    }
    return tile;
}

static void store_tile(const dtd_strip *strip, const dtd_site *site, const real *tile)
{
    if (!strip->at)
        return;
    for (int p = 0; p < site->n_pixels; p++) {
        const real *from = tile + p * DTD_BLOCK;
        real *to = strip->at + p * strip->pixel;
        if (strip->channel == 1 && site->n_channels == DTD_BLOCK)
            memcpy(to, from, DTD_BLOCK * sizeof *to);
        else
            for (int c = 0; c < site->n_channels; c++)
                to[c * strip->channel] = from[c];
    }
}

/* tile[p][c] += bias[c] */
static void add_bias(const dtd_site *site, const real *bias, real *tile)
{
    real b[DTD_BLOCK] = {0};
    if (!bias)
        return;
    memcpy(b, bias, (size_t)site->n_channels * sizeof *b);
    for (int p = 0; p < site->n_pixels; p++)
        for (int c = 0; c < DTD_BLOCK; c++)
            tile[p * DTD_BLOCK + c] += b[c];
}

/* ------------------------------------------------------------------------ the usual case, in one pass over the rows */

static int contiguous(const dtd_strip *strip) { return !strip->at || strip->channel == 1; }

static int plain(const dtd_site *site)
{
    return !site->scale.at && contiguous(&site->out) && contiguous(&site->factor) && contiguous(&site->terms) &&
           contiguous(&site->m) && contiguous(&site->y_prev) && contiguous(&site->terms_prev);
}

static int usual_neuron(const dtd_step *s, const dtd_site *site)
{
    const int clips = s->activation == DTD_CLIP && s->act_alpha <= s->act_beta;
    return plain(site) && (s->activation == DTD_IDENTITY || s->activation == DTD_RELU || clips) &&
           (s->factor_kind == DTD_F_NONE || s->factor_kind == DTD_F_SIGNED ||
            (s->factor_kind == DTD_F_GATE && s->select == DTD_ANY_SIGN));
}

/* n lanes of a view; `full` says that n = VL, and is a constant wherever these are inlined. */
ALWAYS_INLINE vec load_lanes(const real *p, int n, const int full) { return full ? load(p) : load_some(p, n); }

ALWAYS_INLINE void store_lanes(real *p, vec v, int n, const int full)
{
    if (full)
        store(p, v);
    else
        store_some(p, v, n);
}

typedef struct {
    vec bias, bias_d;
} biases;

ALWAYS_INLINE biases load_biases(const dtd_site *site, int c, int n, const int full)
{
    return (biases){site->bias ? load_lanes(site->bias + c, n, full) : (vec){0},
                    site->bias_d ? load_lanes(site->bias_d + c, n, full) : (vec){0}};
}

/* Channels c .. c+n-1 of pixel p.  `terms` is NULL when it is not dual; `previous` and `full` are constants wherever
 * this is inlined. */
ALWAYS_INLINE void finish_vector(const dtd_step *s, const dtd_site *site, const real *y, const real *terms, biases b,
                                 int p, int c, int n, const int previous, const int full)
{
    const real coefficient = s->coefficient, stabilizer = s->stabilizer;
    vec t = load(y), sum = terms ? load(terms) : t;
    if (previous) {
        t += load_lanes(site->y_prev.at + p * site->y_prev.pixel + c, n, full);
        const real *more = site->terms_prev.at ? site->terms_prev.at + p * site->terms_prev.pixel + c : NULL;
        sum = !terms ? t : more ? sum + load_lanes(more, n, full) : sum;
    }
    const vec before = t;
    t += b.bias;
    vec a = s->activation == DTD_RELU   ? vec_positive(t)
            : s->activation == DTD_CLIP ? vec_min(splat(s->act_beta), vec_max(splat(s->act_alpha), t))
                                        : t;
    store_lanes(site->out.at + p * site->out.pixel + c, a, n, full);
    if (site->terms.at)
        store_lanes(site->terms.at + p * site->terms.pixel + c, sum, n, full);
    if (s->factor_kind == DTD_F_GATE)
        store_lanes(site->factor.at + p * site->factor.pixel + c,
                    vec_quotient(coefficient * a, vec_stabilised(sum + b.bias_d, stabilizer)), n, full);
    if (s->factor_kind == DTD_F_SIGNED) {
        const mask below = t < 0;
        const vec rest = vec_negative(before - sum) - stabilizer, d = sum + stabilizer;
        store_lanes(site->factor.at + p * site->factor.pixel + c, (vec)(((mask)rest & below) | ((mask)d & ~below)), n,
                    full);
    }
}

/* Pixels outside, so that memory is walked as it lies; where a vector holds a pixel, its biases stay in registers. */
ALWAYS_INLINE void finish_usual(const dtd_step *s, const dtd_site *site, const real *y, const real *terms, int64_t row,
                                const int previous)
{
    const int n = site->n_channels, whole = n - n % VL;
    if (n == VL) {
        const biases b = load_biases(site, 0, VL, 1);
        for (int p = 0; p < site->n_pixels; p++)
            finish_vector(s, site, y + p * row, terms ? terms + p * row : NULL, b, p, 0, VL, previous, 1);
        return;
    }
    for (int p = 0; p < site->n_pixels; p++) {
        const real *sums = y + p * row, *more = terms ? terms + p * row : NULL;
        for (int c = 0; c < whole; c += VL)
            finish_vector(s, site, sums + c, more ? more + c : NULL, load_biases(site, c, VL, 1), p, c, VL, previous,
                          1);
        if (whole < n)
            finish_vector(s, site, sums + whole, more ? more + whole : NULL, load_biases(site, whole, n - whole, 0), p,
                          whole, n - whole, previous, 0);
    }
}

static void finish_usual_neuron(const dtd_step *s, const dtd_site *site, const real *y, const real *terms, int64_t row)
{
    if (site->y_prev.at)
        finish_usual(s, site, y, terms, row, 1);
    else
        finish_usual(s, site, y, terms, row, 0);
}

static int usual_taps(const dtd_step *s, const dtd_site *site)
{
    return plain(site) && s->multiplier != DTD_M_TIMES_POSITIVE && s->multiplier != DTD_M_TIMES_NEGATIVE &&
           s->multiplier != DTD_M_ABSOLUTE;
}

/* 1 where `set`, 0 where `clear`, else m, which is NaN there */
ALWAYS_INLINE vec one_where(mask set, mask clear, vec m)
{
    return (vec)(((mask)splat(1) & set) | ((mask)m & ~(set | clear)));
}

ALWAYS_INLINE void finish_taps_vector(const dtd_step *s, const dtd_site *site, const real *sum, int p, int c, int n,
                                      const int full)
{
    real *out = site->out.at + p * site->out.pixel + c;
    vec result = load(sum);
    const vec m = s->multiplier == DTD_M_NONE ? result : load_lanes(site->m.at + p * site->m.pixel + c, n, full);
    const mask below = m < 0;
    if (s->multiplier == DTD_M_TIMES)
        result = m * result;
    if (s->multiplier == DTD_M_POSITIVE)
        result = one_where(m > 0, m <= 0, m) * result;
    if (s->multiplier == DTD_M_NEGATIVE)
        result = one_where(below, m >= 0, m) * result;
    if (s->multiplier == DTD_M_SIGN)
        result = (vec)(((mask)-result & below) | ((mask)result & ~below));
    store_lanes(out, s->accumulate ? load_lanes(out, n, full) + result : result, n, full);
}

static void finish_usual_taps(const dtd_step *s, const dtd_site *site, const real *sum, int64_t row)
{
    const int n = site->n_channels, whole = n - n % VL;
    for (int p = 0; p < site->n_pixels; p++, sum += row) {
        for (int c = 0; c < whole; c += VL)
            finish_taps_vector(s, site, sum + c, p, c, VL, 1);
        if (whole < n)
            finish_taps_vector(s, site, sum + whole, p, whole, n - whole, 0);
    }
}

/* -------------------------------------------------------------------------------------------------------- epilogues */

void NAME(finish_neuron)(const dtd_step *s, const dtd_site *site, real *y, real *terms)
{
    if (usual_neuron(s, site)) {
        finish_usual_neuron(s, site, y, terms, DTD_BLOCK);
        return;
    }
    real scales[TILE], other[TILE], out[TILE], before[TILE];
    const int n = site->n_pixels * DTD_BLOCK;
    const real *scale = load_tile(&site->scale, site, scales);
    for (int i = 0; i < n && scale; i++)
        y[i] *= scale[i];
    for (int i = 0; i < n && scale && terms; i++)
        terms[i] *= scale[i];
    if (load_tile(&site->y_prev, site, other))
        for (int i = 0; i < n; i++)
            y[i] += other[i];
    if (terms && load_tile(&site->terms_prev, site, other))
        for (int i = 0; i < n; i++)
            terms[i] += other[i];
    store_tile(&site->terms, site, terms ? terms : y);
    real *d = terms;
    if (!d) { /* terms are the sum itself: keep it from the bias of y */
        memcpy(other, y, (size_t)n * sizeof *y);
        d = other;
    }
    if (s->factor_kind == DTD_F_SIGNED)
        memcpy(before, y, (size_t)n * sizeof *y);
    add_bias(site, site->bias, y);
    NAME(row_activation)(s, y, out, n);
    store_tile(&site->out, site, out);
    if (s->factor_kind != DTD_F_NONE) {
        add_bias(site, site->bias_d, d);
        NAME(row_factor)(s, d, y, out, scale, s->factor_kind == DTD_F_SIGNED ? before : NULL, d, n);
        store_tile(&site->factor, site, d);
    }
}

void NAME(finish_taps)(const dtd_step *s, const dtd_site *site, real *sum)
{
    if (usual_taps(s, site)) {
        finish_usual_taps(s, site, sum, DTD_BLOCK);
        return;
    }
    real other[TILE];
    const int n = site->n_pixels * DTD_BLOCK;
    if (load_tile(&site->scale, site, other))
        for (int i = 0; i < n; i++)
            sum[i] *= other[i];
    if (load_tile(&site->m, site, other))
        NAME(row_multiplier)(s->multiplier, other, sum, n);
    if (s->accumulate && load_tile(&site->out, site, other))
        for (int i = 0; i < n; i++)
            sum[i] = other[i] + sum[i];
    store_tile(&site->out, site, sum);
}

/* A tile of a site: up to DTD_TILE_PIXELS pixels from p, up to DTD_BLOCK channels from c. */
static dtd_site tile_of(const dtd_site *site, int p, int c)
{
    dtd_site tile = *site;
    dtd_strip *strips[] = {&tile.out, &tile.factor, &tile.terms, &tile.y_prev, &tile.terms_prev, &tile.m, &tile.scale};
    for (size_t i = 0; i < sizeof strips / sizeof *strips; i++)
        if (strips[i]->at)
            strips[i]->at += p * strips[i]->pixel + c * strips[i]->channel;
    tile.bias = site->bias ? site->bias + c : NULL;
    tile.bias_d = site->bias_d ? site->bias_d + c : NULL;
    tile.n_pixels = (int)min64(DTD_TILE_PIXELS, site->n_pixels - p);
    tile.n_channels = (int)min64(DTD_BLOCK, site->n_channels - c);
    return tile;
}

static real *copy_tile(const real *from, int64_t row, int n_pixels, real *to)
{
    for (int p = 0; p < n_pixels; p++)
        memcpy(to + p * DTD_BLOCK, from + p * row, DTD_BLOCK * sizeof *to);
    return to;
}

void NAME(finish_neuron_rows)(const dtd_step *s, const dtd_site *site, real *y, real *terms, int64_t row)
{
    if (usual_neuron(s, site)) {
        finish_usual_neuron(s, site, y, terms, row);
        return;
    }
    real tiles[2][TILE];
    for (int p = 0; p < site->n_pixels; p += DTD_TILE_PIXELS)
        for (int c = 0; c < site->n_channels; c += DTD_BLOCK) {
            const dtd_site tile = tile_of(site, p, c);
            const int64_t at = p * row + c;
            real *sum = copy_tile(y + at, row, tile.n_pixels, tiles[0]);
            real *tile_terms = terms ? copy_tile(terms + at, row, tile.n_pixels, tiles[1]) : NULL;
            NAME(finish_neuron)(s, &tile, sum, tile_terms);
        }
}

void NAME(finish_taps_rows)(const dtd_step *s, const dtd_site *site, real *sum, int64_t row)
{
    if (usual_taps(s, site)) {
        finish_usual_taps(s, site, sum, row);
        return;
    }
    real copy[TILE];
    for (int p = 0; p < site->n_pixels; p += DTD_TILE_PIXELS)
        for (int c = 0; c < site->n_channels; c += DTD_BLOCK) {
            const dtd_site tile = tile_of(site, p, c);
            NAME(finish_taps)(s, &tile, copy_tile(sum + p * row + c, row, tile.n_pixels, copy));
        }
}

void NAME(finish_samples)(const dtd_step *s, void *const *bases, int neuron, int64_t n, int64_t n_samples, int64_t c,
                          int64_t n_channels, real *sum, real *terms)
{
    int64_t at_once = s->repeat > 1 ? 1 : n_samples; /* m and factor advance with n / repeat */
    for (int64_t m = 0; m < n_samples; m += at_once) {
        dtd_site site = {.n_pixels = (int)at_once, .n_channels = (int)n_channels};
        NAME(locate)(&site, s, bases, n + m, c, 0, 0, 0);
        if (neuron)
            NAME(finish_neuron)(s, &site, sum + m * DTD_BLOCK, terms ? terms + m * DTD_BLOCK : NULL);
        else
            NAME(finish_taps)(s, &site, sum + m * DTD_BLOCK);
    }
}
