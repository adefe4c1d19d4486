/* epilogue.h: what is done to the sums of a product before they are stored; every product ends here.
 *
 * A tile is up to DTD_TILE_PIXELS pixels of one row (of samples, for LINEAR) by DTD_BLOCK channels.
 */
#ifndef DTD_EPILOGUE_H
#define DTD_EPILOGUE_H

#include "kernel.h"

#define DTD_TILE_PIXELS 16

/* One view as a tile sees it: the address of its first pixel and channel, NULL when absent. */
typedef struct {
    real *at;
    int64_t pixel, channel; /* strides */
} dtd_strip;

typedef struct {
    dtd_strip out, factor, terms, y_prev, terms_prev, m, scale;
    const real *bias, *bias_d; /* of the tile's first channel, or NULL */
    int n_pixels, n_channels;
} dtd_site;

/* Pixels of a step as rows of equal stride: axes that follow one another in memory, in every view, are merged into the
 * row. */
void NAME(merge_pixels)(dtd_step *s);

/* The site of the tile that starts at pixel w of row (n, d, h), channel c. */
void NAME(locate)(dtd_site *site, const dtd_step *s, void *const *bases, int64_t n, int64_t c, int64_t d, int64_t h,
                  int64_t w);

/* Fetch ahead what the epilogue will read and write of n channels from c (of the site's): lines of one block of
 * channels each, too far apart for the hardware to foresee. */
void NAME(fetch)(const dtd_step *s, const dtd_site *site, int64_t c, int64_t n);

/* y, terms: sums of the tile, [pixel][DTD_BLOCK]; terms is NULL when it is not dual.  Both are overwritten. */
void NAME(finish_neuron)(const dtd_step *s, const dtd_site *site, real *y, real *terms);
void NAME(finish_taps)(const dtd_step *s, const dtd_site *site, real *sum);

/* The same on rows of any number of channels, `row` floats from one pixel to the next. */
void NAME(finish_neuron_rows)(const dtd_step *s, const dtd_site *site, real *y, real *terms, int64_t row);
void NAME(finish_taps_rows)(const dtd_step *s, const dtd_site *site, real *sum, int64_t row);

/* The same for layers without pixels, whose step went through samples_as_pixels: samples n.., outputs c.. */
void NAME(samples_as_pixels)(dtd_step *s);
void NAME(finish_samples)(const dtd_step *s, void *const *bases, int neuron, int64_t n, int64_t n_samples, int64_t c,
                          int64_t n_channels, real *sum, real *terms);

#endif
