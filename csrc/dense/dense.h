/* dense.h: a dense tap layer as all files of this folder, and bf16/, compute it. */
#ifndef DTD_DENSE_H
#define DTD_DENSE_H

#include "base/epilogue.h"

typedef struct {
    dtd_step s; /* with merged pixels */
    void *const *bases;
    int neuron, map;
    int64_t c_in, c_out;         /* of a group */
    int64_t block, blocks, span; /* elements of a block, blocks of a group, blocks of an item */
    int64_t units, rows, tiles;  /* items of a group per pixels at once, rows of pixels, tiles of a row */
    int64_t strip;               /* pixels of an item (sparse_gather.c) */
    int tiles_outside;           /* items are numbered (tile, unit) within a group, else (unit, tile) */
} dense_job;

/* Whether leaving out the zeros of x pays, by a sample of its pixels. */
int NAME(sparse_gather_pays)(const dense_job *job);

/* The whole step, without the zeros of x. */
void NAME(sparse_gather)(dense_job *job, int n_threads);

/* Whether the outputs are so few that vectors had better run along the inputs, and the whole step so. */
int NAME(inner_product_pays)(const dense_job *job);
void NAME(inner_product)(dense_job *job, int n_threads);

/* Whether they are so few that vectors had better run along the pixels of a row, and the whole step so. */
int NAME(channels_first_pays)(const dense_job *job);
void NAME(channels_first)(const dense_job *job, int n_threads);

/* The step s, whose pixels job has merged, by what of x is not 0, if that is little; 0 if it is not. */
int NAME(sparse_scatter)(const dense_job *job, const dtd_step *s, int n_threads);

#endif
