/* strided.c: strided views as rows of contiguous numbers (strided.h). */
#include "strided.h"

#include <string.h>

typedef struct {
    const dtd_step *s;
    dtd_row_function row;
    int n_axes, n_views; /* view 0 is the result */
    int64_t shape[DTD_STRIDED_AXES], stride[DTD_STRIDED_VIEWS][DTD_STRIDED_AXES];
    real *at[DTD_STRIDED_VIEWS];
    int64_t piece, pieces; /* the innermost axis in rows of `piece` elements */
    int64_t across;        /* steps of the axis before it that are taken between two rows */
} strided_job;

dtd_view NAME(per_channel)(const dtd_ref *r)
{
    return (dtd_view){.base = r->base, .offset = r->offset, .stride = {[AXIS_C] = 1}};
}

static int64_t magnitude(int64_t a) { return a < 0 ? -a : a; }

static void swap_axes(strided_job *job, int a, int b)
{
    int64_t t = job->shape[a];
    job->shape[a] = job->shape[b];
    job->shape[b] = t;
    for (int k = 0; k < job->n_views; k++) {
        t = job->stride[k][a];
        job->stride[k][a] = job->stride[k][b];
        job->stride[k][b] = t;
    }
}

static int mergeable(const strided_job *job, int outer, int inner)
{
    for (int k = 0; k < job->n_views; k++)
        if (job->at[k] && job->stride[k][outer] != job->stride[k][inner] * job->shape[inner])
            return 0;
    return 1;
}

static void drop_axis(strided_job *job, int axis)
{
    for (int a = axis; a + 1 < job->n_axes; a++)
        swap_axes(job, a, a + 1);
    job->n_axes--;
}

/* Drop axes of size 1, order by the result's strides, merge what is contiguous everywhere. */
static void simplify(strided_job *job)
{
    for (int a = job->n_axes - 1; a >= 0; a--)
        if (job->shape[a] == 1 && job->n_axes > 1)
            drop_axis(job, a);
    for (int a = 1; a < job->n_axes; a++)
        for (int b = a; b > 0 && magnitude(job->stride[0][b]) > magnitude(job->stride[0][b - 1]); b--)
            swap_axes(job, b, b - 1);
    for (int a = job->n_axes - 2; a >= 0; a--)
        if (mergeable(job, a, a + 1)) {
            job->shape[a + 1] *= job->shape[a];
            drop_axis(job, a);
        }
}

/* Rows run along the result's fastest axis, unless that is too short for a row (3 channels) and the next one is
 * longer. */
static void choose_row(strided_job *job)
{
    int inner = job->n_axes - 1;
    if (inner > 0 && job->shape[inner] < 8 && job->shape[inner - 1] > job->shape[inner])
        swap_axes(job, inner, inner - 1);
}

/* The axis along which some view is contiguous while the innermost is not, or -1. */
static int transposed_axis(const strided_job *job)
{
    int inner = job->n_axes - 1;
    for (int a = 0; a < inner; a++)
        for (int k = 1; k < job->n_views; k++)
            if (job->at[k] && job->stride[k][a] == 1 && job->stride[k][inner] > 1)
                return a;
    return -1;
}

/* Divide the innermost axis into rows. */
static void divide_rows(strided_job *job)
{
    int inner = job->n_axes - 1, axis = transposed_axis(job);
    job->piece = axis < 0 ? DTD_ROW : DTD_ROW / 8;
    job->across = axis < 0 ? 1 : job->shape[axis];
    for (int a = axis; axis >= 0 && a + 1 < inner; a++)
        swap_axes(job, a, a + 1);
    job->pieces = ceil_div(job->shape[inner], job->piece);
}

/* to[i] (+)= from[i] */
static void copy(real *to, int64_t to_stride, const real *from, int64_t from_stride, int64_t n, int accumulate)
{
    if (accumulate)
        for (int64_t i = 0; i < n; i++)
            to[i * to_stride] += from[i * from_stride];
    else if (to_stride == 1 && from_stride == 1)
        memmove(to, from, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++)
            to[i * to_stride] = from[i * from_stride];
}

static const real *gather(const real *from, int64_t stride, int64_t n, real *row)
{
    if (!from || stride == 1)
        return from;
    for (int64_t i = 0; i < n; i++)
        row[i] = from[i * stride];
    return row;
}

/* What a job does with n elements of its views. */
typedef void (*piece_function)(const strided_job *job, real *const *at, const int64_t *stride, int64_t n, void *result);

static void run_piece(const strided_job *job, real *const *at, const int64_t *stride, int64_t n, void *unused)
{
    (void)unused;
    real rows[DTD_STRIDED_VIEWS][DTD_ROW], *out = at[0];
    const real *operand[DTD_STRIDED_VIEWS];
    if (!job->row) {
        copy(out, stride[0], at[1], stride[1], n, job->s->accumulate);
        return;
    }
    for (int k = 1; k < job->n_views; k++)
        operand[k - 1] = gather(at[k], stride[k], n, rows[k]);
    int direct = stride[0] == 1 && !job->s->accumulate;
    real *result = direct ? out : rows[0];
    job->row(job->s, operand, result, n);
    if (!direct)
        copy(out, stride[0], result, 1, n, job->s->accumulate);
}

/* Where a row begins: pieces of the innermost axis are counted, indices along the others. */
typedef struct {
    int64_t index[DTD_STRIDED_AXES], offset[DTD_STRIDED_VIEWS];
} row_place;

/* One axis further by `steps`. */
static void move_along(const strided_job *job, int axis, int64_t steps, row_place *p)
{
    const int64_t length = axis == job->n_axes - 1 ? job->piece : 1;
    p->index[axis] += steps;
    for (int k = 0; k < job->n_views; k++)
        p->offset[k] += steps * length * job->stride[k][axis];
}

static void each_piece(const strided_job *job, int64_t first, int64_t last, piece_function run, void *result)
{
    const int inner = job->n_axes - 1;
    int order[DTD_STRIDED_AXES]; /* of the axes, from the one along which rows follow one another */
    int64_t stride[DTD_STRIDED_VIEWS], count[DTD_STRIDED_AXES];
    row_place p = {{0}, {0}};
    for (int k = 0; k < job->n_views; k++)
        stride[k] = job->stride[k][inner];
    for (int a = 0; a <= inner; a++) {
        order[a] = inner - a;
        count[a] = a == inner ? job->pieces : job->shape[a];
    }
    if (job->across > 1)
        order[0] = inner - 1, order[1] = inner;
    int64_t rest = first;
    for (int i = 0; i <= inner; rest /= count[order[i]], i++)
        move_along(job, order[i], rest % count[order[i]], &p);
    for (int64_t item = first; item < last; item++) {
        real *at[DTD_STRIDED_VIEWS];
        for (int k = 0; k < job->n_views; k++)
            at[k] = job->at[k] ? job->at[k] + p.offset[k] : NULL;
        run(job, at, stride, min64(job->piece, job->shape[inner] - p.index[inner] * job->piece), result);
        for (int i = 0; i <= inner; i++) {
            move_along(job, order[i], 1, &p);
            if (p.index[order[i]] < count[order[i]])
                break;
            move_along(job, order[i], -count[order[i]], &p);
        }
    }
}

static void run_strided(void *context, int64_t first, int64_t last)
{
    each_piece(context, first, last, run_piece, NULL);
}

/* Axes, rows and pieces as the views lie; returns the number of pieces. */
static int64_t arrange(strided_job *job)
{
    simplify(job);
    choose_row(job);
    divide_rows(job);
    int64_t items = job->pieces;
    for (int a = 0; a < job->n_axes - 1; a++)
        items *= job->shape[a];
    return items;
}

void NAME(strided)(const dtd_step *s, void *const *bases, int n_threads, dtd_row_function row,
                   const dtd_view *const *operands, int n_operands, unsigned kept)
{
    strided_job job = {.s = s, .row = row, .n_axes = DTD_STRIDED_AXES, .n_views = n_operands + 1};
    const int64_t repeat = max64(1, s->repeat);
    for (int a = 1; a < DTD_STRIDED_AXES; a++)
        job.shape[a] = a == 1 ? repeat : s->out.shape[a - 1];
    job.shape[0] = s->out.shape[AXIS_N] / repeat;
    for (int k = 0; k < job.n_views; k++) {
        const dtd_view *v = k == 0 ? &s->out : operands[k - 1];
        int is_kept = k > 0 && (kept >> (k - 1) & 1);
        job.at[k] = reals(v, bases);
        job.stride[k][0] = is_kept ? v->stride[AXIS_N] : v->stride[AXIS_N] * repeat;
        job.stride[k][1] = is_kept ? 0 : v->stride[AXIS_N];
        for (int a = 2; a < DTD_STRIDED_AXES; a++)
            job.stride[k][a] = v->stride[a - 1];
    }
    const int64_t items = arrange(&job);
    int64_t length = max64(1, min64(job.piece, job.shape[job.n_axes - 1]));
    dtd_parallel(n_threads, items, ceil_div(1 << 14, length), run_strided, &job);
}

/* ------------------------------------------------------------------------------------------------------------- sums */

typedef struct {
    const dtd_step *s;
    dtd_sum_function row;
    strided_job sample; /* the views of sample 0; its pieces are what is divided into blocks */
    int64_t step[DTD_STRIDED_VIEWS], pieces, blocks;
    int whole; /* rows fill lanes where they lie, several of them at once */
    double *out;
} sums_job;

/* A block: its sums so far, those of the last `fresh` elements in lanes, and `n` elements that wait until they fill a
 * row. */
typedef struct {
    const sums_job *job;
    double sums[DTD_SUMS_MOST], lanes[DTD_SUMS_MOST][DTD_LANES];
    int64_t fresh, n;
    real rows[DTD_STRIDED_VIEWS][DTD_ROW];
} sums_block;

/* Elements that are added up in lanes before those are; elements of a row that is not joined to others, alone or among
 * several that go on at one distance. */
enum { FRESH_MOST = 64 * DTD_LANES, WHOLE_LEAST = 32, AMONG_LEAST = 8 };

static void add_lanes_up(sums_block *block)
{
    for (int64_t k = 0; k < block->job->s->out.shape[AXIS_C]; k++) {
        double *lane = block->lanes[k];
        for (int half = DTD_LANES / 2; half > 0; half /= 2)
            for (int l = 0; l < half; l++)
                lane[l] += lane[l + half];
        block->sums[k] += lane[0];
        memset(lane, 0, sizeof block->lanes[k]);
    }
    block->fresh = 0;
}

static void add_rows(sums_block *block, const dtd_rows *rows)
{
    block->job->row(block->job->s, rows, block->lanes);
    block->fresh += rows->count * rows->n;
    if (block->fresh >= FRESH_MOST)
        add_lanes_up(block);
}

static void add_waiting(sums_block *block)
{
    dtd_rows rows = {.count = 1, .n = ceil_div(block->n, DTD_LANES) * DTD_LANES};
    for (int k = 0; k < block->job->sample.n_views; k++) {
        rows.operand[k] = block->job->sample.at[k] ? block->rows[k] : NULL;
        memset(block->rows[k] + block->n, 0, (size_t)(rows.n - block->n) * sizeof **block->rows);
    }
    if (rows.n)
        add_rows(block, &rows);
    block->n = 0;
}

/* A row that fills lanes where it lies, other elements behind those that wait. */
static void add_piece(const strided_job *sample, real *const *at, const int64_t *stride, int64_t n, void *result)
{
    sums_block *block = result;
    dtd_rows row = {.count = 1, .n = n};
    int whole = n % DTD_LANES == 0 && n >= WHOLE_LEAST;
    for (int k = 0; k < sample->n_views; k++) {
        row.operand[k] = at[k];
        whole &= !at[k] || stride[k] == 1;
    }
    if (whole) {
        add_rows(block, &row);
        return;
    }
    if (block->n + n > DTD_ROW)
        add_waiting(block);
    for (int k = 0; k < sample->n_views; k++)
        if (at[k])
            copy(block->rows[k] + block->n, 1, at[k], stride[k], n, 0);
    block->n += n;
}

/* Whether every row is a piece that fills lanes where it lies. */
static int rows_are_whole(const strided_job *sample)
{
    const int inner = sample->n_axes - 1;
    const int64_t n = sample->shape[inner];
    int whole = inner > 0 && sample->pieces == 1 && sample->across == 1 && n % DTD_LANES == 0 && n >= AMONG_LEAST;
    for (int k = 0; k < sample->n_views; k++)
        whole &= !sample->at[k] || sample->stride[k][inner] == 1;
    return whole;
}

/* Rows first .. last-1, as many at once as lie at one distance and do not exceed DTD_ROW. */
static void add_whole_rows(const strided_job *sample, int64_t first, int64_t last, sums_block *block)
{
    const int axis = sample->n_axes - 2;
    row_place p = {{0}, {0}};
    dtd_rows rows = {.n = sample->shape[axis + 1]};
    for (int k = 0; k < sample->n_views; k++)
        rows.step[k] = sample->stride[k][axis];
    int64_t rest = first;
    for (int a = axis; a >= 0; rest /= sample->shape[a], a--)
        move_along(sample, a, rest % sample->shape[a], &p);
    for (int64_t item = first; item < last; item += rows.count) {
        rows.count = min64(max64(1, DTD_ROW / rows.n), min64(last - item, sample->shape[axis] - p.index[axis]));
        for (int k = 0; k < sample->n_views; k++)
            rows.operand[k] = sample->at[k] ? sample->at[k] + p.offset[k] : NULL;
        add_rows(block, &rows);
        move_along(sample, axis, rows.count, &p);
        for (int a = axis; a > 0 && p.index[a] == sample->shape[a]; a--) {
            move_along(sample, a, -sample->shape[a], &p);
            move_along(sample, a - 1, 1, &p);
        }
    }
}

/* Items are blocks: (n, b). */
static void run_sums(void *context, int64_t first, int64_t last)
{
    const sums_job *job = context;
    const dtd_view *out = &job->s->out;
    for (int64_t item = first; item < last; item++) {
        const int64_t n = item / job->blocks, b = item % job->blocks;
        sums_block block; /* its rows need no value */
        block.job = job, block.fresh = block.n = 0;
        memset(block.sums, 0, sizeof block.sums);
        memset(block.lanes, 0, sizeof block.lanes);
        strided_job sample = job->sample;
        for (int k = 0; k < sample.n_views; k++)
            sample.at[k] = sample.at[k] ? sample.at[k] + n * job->step[k] : NULL;
        const int64_t from = job->pieces * b / job->blocks, to = job->pieces * (b + 1) / job->blocks;
        if (job->whole)
            add_whole_rows(&sample, from, to, &block);
        else
            each_piece(&sample, from, to, add_piece, &block);
        add_waiting(&block);
        add_lanes_up(&block);
        for (int64_t k = 0; k < out->shape[AXIS_C]; k++)
            job->out[n * out->stride[AXIS_N] + k * out->stride[AXIS_C] + b * out->stride[AXIS_W]] = block.sums[k];
    }
}

void NAME(sum_strided)(const dtd_step *s, void *const *bases, int n_threads, dtd_sum_function row,
                       const dtd_view *const *operands, int n_operands)
{
    sums_job job = {.s = s, .row = row, .blocks = s->out.shape[AXIS_W]};
    job.sample = (strided_job){.s = s, .n_axes = AXIS_EXTRA, .n_views = n_operands};
    job.out = (double *)bases[s->out.base] + s->out.offset;
    for (int k = 0; k < n_operands; k++) {
        job.sample.at[k] = reals(operands[k], bases);
        job.step[k] = operands[k]->stride[AXIS_N];
        for (int a = 0; a < AXIS_EXTRA; a++)
            job.sample.stride[k][a] = operands[k]->stride[a + 1];
    }
    memcpy(job.sample.shape, operands[0]->shape + 1, AXIS_EXTRA * sizeof *job.sample.shape);
    job.pieces = arrange(&job.sample);
    job.whole = rows_are_whole(&job.sample);
    const int64_t length = max64(1, count_without(operands[0]->shape, AXIS_N) / max64(1, job.blocks));
    dtd_parallel(n_threads, operands[0]->shape[AXIS_N] * job.blocks, ceil_div(1 << 14, length), run_sums, &job);
}
