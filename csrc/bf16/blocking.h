/* blocking.h: how bf16.c divides a layer: the pixels that each tile reads, and the panels that are packed. */
#ifndef DTD_BLOCKING_H
#define DTD_BLOCKING_H

#include "dense/dense.h"
#include "components.h"

enum { TILE = DTD_TILE_PIXELS };

typedef struct {
    dense_job dense;
    int components_y, components_terms, components; /* components: the more of the two */
    int64_t unit_blocks, units;                     /* blocks of outputs that a unit holds: 2, or 1 and its w+ */
    /* Runs of pixels along which x advances by `stride`.  A run is a row, or several whose starts are `pitch` pixels
     * apart (those beyond `width` are computed and dropped), or with a single tap all there are, gathered one after the
     * other. */
    int gathered;
    int64_t stride, width, pitch, run_rows, run_length, run_tiles, tiles;
    int64_t place; /* elements from one pixel of x to the next in memory */
    int64_t tap_low, tap_high;
    int64_t chunks, chunk_groups;
    int64_t sections, panels, unit_groups; /* panels: of each section, which is a sample, or all there are */
} bf16_job;

/* Offset in x of row r of the outputs, the rows of all samples numbered through. */
ALWAYS_INLINE int64_t row_offset(const dtd_step *s, int64_t r)
{
    const int64_t *shape = s->out.shape, *stride = s->x.stride;
    return r / shape[AXIS_H] / shape[AXIS_D] * stride[AXIS_N] + r / shape[AXIS_H] % shape[AXIS_D] * stride[AXIS_D] +
           r % shape[AXIS_H] * stride[AXIS_H];
}

ALWAYS_INLINE int64_t tile_offset(const bf16_job *job, int64_t tile)
{
    return row_offset(&job->dense.s, tile / job->run_tiles * job->run_rows) +
           tile % job->run_tiles * TILE * job->stride;
}

ALWAYS_INLINE int64_t tile_pixels(const bf16_job *job, int64_t tile)
{
    return min64(TILE, job->run_length - tile % job->run_tiles * TILE);
}

/* Pixels of x, split, that tiles first .. last-1 read. */
ALWAYS_INLINE int64_t panel_pixels(const bf16_job *job, int64_t first, int64_t last)
{
    if (job->gathered)
        return (last - first) * TILE;
    int64_t end = tile_offset(job, last - 1) + (tile_pixels(job, last - 1) - 1) * job->stride + job->tap_high;
    return (end - tile_offset(job, first) - job->tap_low) / job->place + 1;
}

/* The pixels that tiles first .. last-1 read, in components; returns the bytes of a chunk. */
int64_t UNIT(pack_panel)(const bf16_job *job, int64_t first, int64_t last, int64_t chunk0, int64_t chunks, char *to);

/* The weights of a unit, mapped, in components: [chunk][tap][component][half]. */
void UNIT(pack_weights)(const bf16_job *job, int64_t unit, int64_t chunk0, int64_t chunks, char *to);

/* Have `calls` of multiply() fetch what pack_weights will read next, a little with every chunk and tap. */
void UNIT(prefetch_weights)(const bf16_job *job, int64_t unit, int64_t chunk0, int64_t chunks, int64_t calls,
                            bf16_tile *t);

#endif
