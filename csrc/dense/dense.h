/* dense.h: a dense tap layer as all files of this folder, and bf16/, compute it. */
#ifndef DTD_DENSE_H
#define DTD_DENSE_H

#include "base/epilogue.h"

typedef struct {
    dtd_step s;           /* with merged pixels */
    const dtd_step *step; /* as it was given */
    void *const *bases;
    int neuron, map, pair;       /* pair: terms of x+ and x-, which `other` and `shift` hold */
    int64_t c_in, c_out;         /* of a group */
    int64_t block, blocks, span; /* elements of a block, blocks of a group, blocks of an item */
    int64_t units, rows, tiles;  /* spans of a group, rows of pixels, tiles of a row */
    int64_t gang;                /* units of an item (direct.c) */
    int64_t strip;               /* pixels of an item (sparse_gather.c) */
    int tiles_outside;           /* items are numbered (tile, unit) within a group, else (unit, tile) */
    int n_threads;
} dense_job;

/* A step that is not yet divided into items. */
dense_job NAME(dense_job)(const dtd_step *s, void *const *bases, int neuron);

/* The bodies of a dense step.  `suits`: whether a body can compute the step and is the fastest to do so, by the shape
 * alone.  `pays`: whether it is, by the zeros in a sample of x; asked if it suits.  choose.c holds the table. */
int NAME(inner_product_suits)(const dense_job *job);
void NAME(inner_product)(dense_job *job, int n_threads);

int NAME(sparse_scatter_suits)(const dense_job *job);
int NAME(sparse_scatter_pays)(const dense_job *job);
void NAME(sparse_scatter)(dense_job *job, int n_threads);

int NAME(channels_first_suits)(const dense_job *job);
void NAME(channels_first)(dense_job *job, int n_threads);

int NAME(sparse_gather_suits)(const dense_job *job);
int NAME(sparse_gather_pays)(const dense_job *job);
void NAME(sparse_gather)(dense_job *job, int n_threads);

void NAME(direct)(dense_job *job, int n_threads);

#endif
