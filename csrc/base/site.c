/* site.c: where a tile's views lie in memory, and what is fetched of them ahead (epilogue.h). */
#include "epilogue.h"

#define PIXEL_VIEWS(s)                                                                                                 \
    {&(s)->out,        &(s)->factor, &(s)->terms, &(s)->x,     &(s)->y_prev,                                           \
     &(s)->terms_prev, &(s)->m,      &(s)->scale, &(s)->other, &(s)->shift}

static void merge_into_row(dtd_step *s, int axis)
{
    dtd_view *views[] = PIXEL_VIEWS(s);
    const int n_views = sizeof views / sizeof *views;
    int64_t outer = s->out.shape[axis], inner = s->out.shape[AXIS_W];
    for (int i = 0; i < n_views; i++) {
        const int64_t *stride = views[i]->stride;
        if (present(views[i]) && outer > 1 && inner > 1 && stride[axis] != stride[AXIS_W] * inner)
            return;
    }
    for (int i = 0; i < n_views && inner == 1; i++)
        views[i]->stride[AXIS_W] = views[i]->stride[axis];
    s->out.shape[AXIS_W] = outer * inner;
    s->out.shape[axis] = 1;
}

void NAME(merge_pixels)(dtd_step *s)
{
    merge_into_row(s, AXIS_H);
    merge_into_row(s, AXIS_D);
    if (s->repeat <= 1)
        merge_into_row(s, AXIS_N);
}

void NAME(samples_as_pixels)(dtd_step *s)
{
    dtd_view *views[] = PIXEL_VIEWS(s);
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        views[i]->stride[AXIS_W] = views[i]->stride[AXIS_N];
}

static dtd_strip strip_of(const dtd_view *v, void *const *bases, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w)
{
    dtd_strip strip = {reals(v, bases), v->stride[AXIS_W], v->stride[AXIS_C]};
    const int64_t *stride = v->stride;
    if (strip.at)
        strip.at +=
            n * stride[AXIS_N] + c * stride[AXIS_C] + d * stride[AXIS_D] + h * stride[AXIS_H] + w * stride[AXIS_W];
    return strip;
}

void NAME(locate)(dtd_site *site, const dtd_step *s, void *const *bases, int64_t n, int64_t c, int64_t d, int64_t h,
                  int64_t w)
{
    int64_t kept = kept_sample(s, n);
    site->out = strip_of(&s->out, bases, n, c, d, h, w);
    site->factor = strip_of(&s->factor, bases, kept, c, d, h, w);
    site->terms = strip_of(&s->terms, bases, n, c, d, h, w);
    site->y_prev = strip_of(&s->y_prev, bases, n, c, d, h, w);
    site->terms_prev = strip_of(&s->terms_prev, bases, n, c, d, h, w);
    site->m = strip_of(&s->m, bases, kept, c, d, h, w);
    site->scale = strip_of(&s->scale, bases, n, c, d, h, w);
    const real *bias = vector(&s->bias, bases), *bias_d = vector(&s->bias_d, bases);
    site->bias = bias ? bias + c : NULL;
    site->bias_d = bias_d ? bias_d + c : NULL;
}

ALWAYS_INLINE void fetch_strip(const dtd_strip *strip, int n_pixels, int64_t first, int64_t n, const int writing)
{
    for (int p = 0; p < n_pixels && strip->at; p++)
        for (int64_t c = first; c < first + n; c += DTD_BLOCK)
            if (writing) /* which clang wants as a literal */
                __builtin_prefetch(strip->at + p * strip->pixel + c * strip->channel, 1);
            else
                __builtin_prefetch(strip->at + p * strip->pixel + c * strip->channel, 0);
}

void NAME(fetch)(const dtd_step *s, const dtd_site *site, int64_t c, int64_t n)
{
    fetch_strip(&site->y_prev, site->n_pixels, c, n, 0);
    fetch_strip(&site->terms_prev, site->n_pixels, c, n, 0);
    fetch_strip(&site->m, site->n_pixels, c, n, 0);
    fetch_strip(&site->out, site->n_pixels, c, n, 1);
    if (s->factor_kind != DTD_F_NONE)
        fetch_strip(&site->factor, site->n_pixels, c, n, 1);
}
