/* slabs.h: the work of parts.c: which pixels of x a tile reads, and what is split when. */
#ifndef DTD_SLABS_H
#define DTD_SLABS_H

#include "dense.h"
#include "parts.h"

enum { TILE = DTD_TILE_PIXELS };

typedef struct {
    dense_job dense;
    int parts_y, parts_terms, parts; /* parts: the more of the two */
    int64_t unit_blocks, units;      /* blocks of outputs that a unit holds: 2, or 1 and its w+ */
    /* Runs of pixels along which x advances by `stride`.  A run is a row, or several whose starts are `pitch` pixels
     * apart (those beyond `width` are computed and dropped), or with a single tap all there are, gathered one after the
     * other. */
    int gathered;
    int64_t stride, width, pitch, run_rows, run_length, run_tiles, tiles;
    int64_t place; /* elements from one pixel of x to the next in memory */
    int64_t tap_low, tap_high;
    int64_t chunks, chunk_groups;
    int64_t sections, slabs, unit_groups; /* slabs: of each section, which is a sample, or all there are */
} parts_job;

/* Offset in x of row r of the outputs, the rows of all samples numbered through. */
ALWAYS_INLINE int64_t row_offset(const dtd_step *s, int64_t r)
{
    const int64_t *shape = s->out.shape, *stride = s->x.stride;
    return r / shape[AXIS_H] / shape[AXIS_D] * stride[AXIS_N] + r / shape[AXIS_H] % shape[AXIS_D] * stride[AXIS_D] +
           r % shape[AXIS_H] * stride[AXIS_H];
}

ALWAYS_INLINE int64_t tile_offset(const parts_job *job, int64_t tile)
{
    return row_offset(&job->dense.s, tile / job->run_tiles * job->run_rows) +
           tile % job->run_tiles * TILE * job->stride;
}

ALWAYS_INLINE int64_t tile_pixels(const parts_job *job, int64_t tile)
{
    return min64(TILE, job->run_length - tile % job->run_tiles * TILE);
}

/* Pixels of x, split, that tiles first .. last-1 read. */
ALWAYS_INLINE int64_t slab_pixels(const parts_job *job, int64_t first, int64_t last)
{
    if (job->gathered)
        return (last - first) * TILE;
    int64_t end = tile_offset(job, last - 1) + (tile_pixels(job, last - 1) - 1) * job->stride + job->tap_high;
    return (end - tile_offset(job, first) - job->tap_low) / job->place + 1;
}

/* The pixels that tiles first .. last-1 read, in parts; returns the bytes of a chunk. */
int64_t UNIT(split_slab)(const parts_job *job, int64_t first, int64_t last, int64_t chunk0, int64_t chunks, char *to);

/* The weights of a unit, mapped, in parts: [chunk][tap][part][half]. */
void UNIT(split_unit)(const parts_job *job, int64_t unit, int64_t chunk0, int64_t chunks, char *to);

/* Have `calls` of multiply() fetch what split_unit will read next, a little with every chunk and tap. */
void UNIT(fetch_unit)(const parts_job *job, int64_t unit, int64_t chunk0, int64_t chunks, int64_t calls, parts_tile *t);

#endif
