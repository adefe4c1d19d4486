/* tiles_amx.h: the tiles of bf16.c on AMX.
 *
 * AMX has eight registers of 16 rows by 64 bytes: 0 to 3 hold sums, 4 and 5 pixels, 6 and 7 weights.
 */
#include <immintrin.h>

enum { MOST_COMPONENTS = 3, AMX_ROWS = 16, AMX_ROW_BYTES = 64 };

static void begin_tiles(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = AMX_ROW_BYTES;
        shape.rows[i] = AMX_ROWS;
    }
    __asm__ volatile("" : : "m"(shape)); /* all of it is read, though the intrinsic of some compilers names 8 bytes */
    _tile_loadconfig(&shape);
}

static void end_tiles(void) { _tile_release(); }

/* `tiles` of pixels by `halves` of outputs; all but t are constants wherever this is inlined. */
ALWAYS_INLINE void multiply_tiles(bf16_tile *t, const int tiles, const int halves, const int components_y,
                                  const int components_terms)
{
    const int components = components_y;
    const int64_t pixel = t->pixel;
#define SUM(m, h) ((char *)t->sum[h] + (m) * DTD_TILE_PIXELS * t->row)
#define EACH_SUM(DO)                                                                                                   \
    do {                                                                                                               \
        DO(0, 0, 0);                                                                                                   \
        if (halves > 1)                                                                                                \
            DO(1, 0, 1);                                                                                               \
        if (tiles > 1)                                                                                                 \
            DO(2, 1, 0);                                                                                               \
        if (tiles > 1 && halves > 1)                                                                                   \
            DO(3, 1, 1);                                                                                               \
    } while (0)
#define LOAD_SUM(n, m, h) _tile_loadd(n, SUM(m, h), t->row)
#define ZERO_SUM(n, m, h) _tile_zero(n)
#define STORE_SUM(n, m, h) _tile_stored(n, SUM(m, h), t->row)
#define LOAD_PIXELS(component)                                                                                         \
    do {                                                                                                               \
        _tile_loadd(4, x0 + (component) * CHUNK_BYTES, pixel);                                                         \
        if (tiles > 1)                                                                                                 \
            _tile_loadd(5, x1 + (component) * CHUNK_BYTES, pixel);                                                     \
    } while (0)
#define LOAD_WEIGHTS(component, with_terms)                                                                            \
    do {                                                                                                               \
        _tile_loadd(6, w + (component) * 2 * HALF_BYTES, CHUNK_BYTES);                                                 \
        if (halves > 1 && (with_terms))                                                                                \
            _tile_loadd(7, w + ((component) * 2 + 1) * HALF_BYTES, CHUNK_BYTES);                                       \
    } while (0)
#define MULTIPLY(with_terms)                                                                                           \
    do {                                                                                                               \
        _tile_dpbf16ps(0, 4, 6);                                                                                       \
        if (halves > 1 && (with_terms))                                                                                \
            _tile_dpbf16ps(1, 4, 7);                                                                                   \
        if (tiles > 1)                                                                                                 \
            _tile_dpbf16ps(2, 5, 6);                                                                                   \
        if (tiles > 1 && halves > 1 && (with_terms))                                                                   \
            _tile_dpbf16ps(3, 5, 7);                                                                                   \
    } while (0)
    if (t->resume)
        EACH_SUM(LOAD_SUM);
    else
        EACH_SUM(ZERO_SUM);
    const char *w = t->w;
    for (int64_t c = 0; c < t->n_chunks; c++)
        for (int64_t k = 0; k < t->n_taps; k++, w += components * 2 * HALF_BYTES) {
            const char *x0 = t->x[0] + c * t->chunk + t->taps[k], *x1 = t->x[1] + c * t->chunk + t->taps[k];
            fetch_ahead(t);
            if (components == 3) { /* x1 w3, x1 w2, x2 w2, x2 w1, x1 w1, x3 w1: one operand changes at a time */
                const int both = components_terms == 3;
                LOAD_PIXELS(0);
                LOAD_WEIGHTS(2, both);
                MULTIPLY(both);
                LOAD_WEIGHTS(1, both);
                MULTIPLY(both);
                LOAD_PIXELS(1);
                MULTIPLY(both);
                LOAD_WEIGHTS(0, 1);
                MULTIPLY(both);
                LOAD_PIXELS(2);
                MULTIPLY(both);
                LOAD_PIXELS(0);
                MULTIPLY(1);
            } else if (components == 2) { /* x1 w2, x1 w1, x2 w1 */
                LOAD_PIXELS(0);
                LOAD_WEIGHTS(1, components_terms == 2);
                MULTIPLY(components_terms == 2);
                LOAD_WEIGHTS(0, 1);
                MULTIPLY(1);
                LOAD_PIXELS(1);
                MULTIPLY(components_terms == 2);
            } else {
                LOAD_PIXELS(0);
                LOAD_WEIGHTS(0, 1);
                MULTIPLY(1);
            }
        }
    EACH_SUM(STORE_SUM);
#undef SUM
#undef EACH_SUM
#undef LOAD_SUM
#undef ZERO_SUM
#undef STORE_SUM
#undef LOAD_PIXELS
#undef LOAD_WEIGHTS
#undef MULTIPLY
}

#define SHAPES(y, terms)                                                                                               \
    static void multiply_##y##_##terms(bf16_tile *t, int tiles, int halves)                                            \
    {                                                                                                                  \
        if (tiles > 1 && halves > 1)                                                                                   \
            multiply_tiles(t, 2, 2, y, terms);                                                                         \
        else if (tiles > 1)                                                                                            \
            multiply_tiles(t, 2, 1, y, terms);                                                                         \
        else if (halves > 1)                                                                                           \
            multiply_tiles(t, 1, 2, y, terms);                                                                         \
        else                                                                                                           \
            multiply_tiles(t, 1, 1, y, terms);                                                                         \
    }
SHAPES(3, 3)
SHAPES(3, 1)
SHAPES(2, 2)
SHAPES(2, 1)
SHAPES(1, 1)

static void multiply(bf16_tile *t, int tiles, int halves, int components_y, int components_terms)
{
    if (components_y == 1)
        multiply_1_1(t, tiles, halves);
    else if (components_y == 2 && components_terms == 1)
        multiply_2_1(t, tiles, halves);
    else if (components_y == 2)
        multiply_2_2(t, tiles, halves);
    else if (components_terms == 1)
        multiply_3_1(t, tiles, halves);
    else
        multiply_3_3(t, tiles, halves);
}
