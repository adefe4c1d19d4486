/* pack.c: packs pixels and weights as bfloat16 components (components.h) for the tiles of bf16.c. */
#include "blocking.h"

/* Channels of a pixel, in `chunks` chunks that lie `chunk` bytes apart. */
ALWAYS_INLINE void pack_chunks(const float *x, int64_t n_channels, int64_t chunks, char *to, int64_t chunk,
                               const int components)
{
    __m512i component[3];
    for (int64_t c = 0; c < chunks; c++, x += CHUNK, to += chunk, n_channels -= CHUNK) {
        if (n_channels >= CHUNK)
            split(load(x), load(x + VL), components, component);
        else
            split(load_some(x, min64(VL, n_channels)), n_channels > VL ? load_some(x + VL, n_channels - VL) : (vec){0},
                  components, component);
        for (int i = 0; i < components; i++)
            _mm512_store_si512(to + i * CHUNK_BYTES, component[i]);
    }
}

ALWAYS_INLINE void pack_pixel(const float *x, int64_t n_channels, int64_t chunks, char *to, int64_t chunk,
                              int components)
{
    if (components == 3)
        pack_chunks(x, n_channels, chunks, to, chunk, 3);
    else if (components == 2)
        pack_chunks(x, n_channels, chunks, to, chunk, 2);
    else
        pack_chunks(x, n_channels, chunks, to, chunk, 1);
}

int64_t UNIT(pack_panel)(const bf16_job *job, int64_t first, int64_t last, int64_t chunk0, int64_t chunks, char *to)
{
    const dtd_step *s = &job->dense.s;
    const float *x = reals(&s->x, job->dense.bases) + chunk0 * CHUNK;
    const int64_t n_channels = job->dense.c_in - chunk0 * CHUNK, pixel = job->components * CHUNK_BYTES;
    const int64_t n = panel_pixels(job, first, last), chunk = n * pixel;
    if (!job->gathered) {
        x += tile_offset(job, first) + job->tap_low;
        for (int64_t q = 0; q < n; q++, x += job->place, to += pixel)
            pack_pixel(x, n_channels, chunks, to, chunk, job->components);
        return chunk;
    }
    x += table(&s->taps, job->dense.bases)[0];
    const int64_t end = min64(last * TILE, job->run_length);
    for (int64_t q = first * TILE; q < end;) {
        const float *row = x + row_offset(s, q / job->width);
        for (int64_t w = q % job->width; w < job->width && q < end; w++, q++, to += pixel)
            pack_pixel(row + w * job->stride, n_channels, chunks, to, chunk, job->components);
    }
    return chunk;
}

/* One chunk and tap of one block of outputs: up to 32 rows of w, mapped, as [component][half]; `positive` (or NULL):
 * the same of w+. */
ALWAYS_INLINE void pack_chunk_weights(const float *w, int64_t rows, const int map, float gamma, char *to,
                                      char *positive, const int components, const int components_positive)
{
    for (int64_t i = 0; i < DTD_BLOCK; i++) {
        __m512i component[3];
        vec a = {0}, b = {0};
        if (i < rows)
            a = map_any(map, load(w + i * DTD_BLOCK), gamma);
        if (DTD_BLOCK + i < rows)
            b = map_any(map, load(w + (DTD_BLOCK + i) * DTD_BLOCK), gamma);
        split(a, b, components, component);
        for (int n = 0; n < components; n++)
            _mm512_store_si512(to + n * 2 * HALF_BYTES + i * CHUNK_BYTES, component[n]);
        if (!positive)
            continue;
        /* the sign of w is that of its first component */
        const __mmask32 above = _mm512_cmpgt_epi16_mask(component[0], _mm512_setzero_si512());
        for (int n = 0; n < components_positive; n++)
            _mm512_store_si512(positive + n * 2 * HALF_BYTES + i * CHUNK_BYTES,
                               _mm512_maskz_mov_epi16(above, component[n]));
    }
}

/* All chunks and taps of a unit; `map` and what follows it are constants wherever this is inlined. */
ALWAYS_INLINE void pack_blocks(const bf16_job *job, int64_t unit, int64_t chunk0, int64_t chunks, char *to,
                               const int map, const int dual, const int components, const int components_positive)
{
    const dense_job *dense = &job->dense;
    const dtd_step *s = &dense->s;
    const int64_t block = unit * job->unit_blocks, n_blocks = min64(job->unit_blocks, dense->blocks - block);
    const float *weight = vector(&s->weight, dense->bases) + block * dense->block;
    for (int64_t c = chunk0; c < chunk0 + chunks; c++)
        for (int64_t k = 0; k < s->n_taps; k++, to += components * 2 * HALF_BYTES)
            for (int64_t b = 0; b < n_blocks; b++) {
                const float *w = weight + b * dense->block + (k * dense->c_in + c * CHUNK) * DTD_BLOCK;
                const int64_t rows = dense->c_in - c * CHUNK;
                if (rows >= CHUNK)
                    pack_chunk_weights(w, CHUNK, map, s->gamma, to + b * HALF_BYTES, dual ? to + HALF_BYTES : NULL,
                                       components, components_positive);
                else
                    pack_chunk_weights(w, rows, map, s->gamma, to + b * HALF_BYTES, dual ? to + HALF_BYTES : NULL,
                                       components, components_positive);
            }
}

void UNIT(pack_weights)(const bf16_job *job, int64_t unit, int64_t chunk0, int64_t chunks, char *to)
{
    const int map = job->dense.map, dual = map == DUAL_MAP, components = job->components_y;
#define PACK(map_, dual_, components_, positive_)                                                                      \
    pack_blocks(job, unit, chunk0, chunks, to, map_, dual_, components_, positive_)
    if (dual && components == 3 && job->components_terms == 3)
        PACK(DTD_W, 1, 3, 3);
    else if (dual && components == 3)
        PACK(DTD_W, 1, 3, 1);
    else if (dual)
        PACK(DTD_W, 1, 2, 1);
    else if (map == DTD_W_POSITIVE && components == 3)
        PACK(DTD_W_POSITIVE, 0, 3, 0);
    else if (map == DTD_W_POSITIVE)
        PACK(DTD_W_POSITIVE, 0, 1, 0);
    else if (components == 3)
        PACK(map, 0, 3, 0);
    else if (components == 2)
        PACK(map, 0, 2, 0);
    else
        PACK(map, 0, 1, 0);
#undef PACK
}

void UNIT(prefetch_weights)(const bf16_job *job, int64_t unit, int64_t chunk0, int64_t chunks, int64_t calls,
                            bf16_tile *t)
{
    const dense_job *dense = &job->dense;
    const int64_t n_blocks = min64(job->unit_blocks, dense->blocks - unit * job->unit_blocks);
    /* of one tap: blocks of outputs follow one another too */
    const int64_t strip = dense->c_in * DTD_BLOCK * (int64_t)sizeof(float);
    const int64_t channels = min64(chunks * CHUNK, dense->c_in - chunk0 * CHUNK);
    t->ahead = (const char *)(vector(&dense->s.weight, dense->bases) + unit * job->unit_blocks * dense->block +
                              chunk0 * CHUNK * DTD_BLOCK);
    t->ahead_strip = t->ahead_left = channels; /* lines: a channel has one */
    t->ahead_gap = strip - channels * LINE_BYTES;
    t->ahead_lines = channels * dense->s.n_taps * n_blocks;
    t->ahead_step = ceil_div(t->ahead_lines, calls * dense->s.n_taps * chunks);
}
