/* verify.c: the operations, and which fields of a step each one needs and takes.  Every step is checked before it runs.
 */
#define DTD_ISA baseline
#include "base/kernel.h"
#include "verify.h"

#include <stddef.h>
#include <stdio.h>

/* Fields as bits; FIELDS holds their names in this order. */
enum {
    OUT = 1 << 0, /* views and refs: given if their base is not -1 */
    FACTOR = 1 << 1,
    TERMS = 1 << 2,
    X = 1 << 3,
    Y_PREV = 1 << 4,
    TERMS_PREV = 1 << 5,
    M = 1 << 6,
    SCALE = 1 << 7,
    WEIGHT = 1 << 8,
    BIAS = 1 << 9,
    BIAS_D = 1 << 10,
    TAPS = 1 << 11,
    PRECISION = 1 << 12, /* numbers: given if they differ from their defaults */
    WEIGHT_MAP = 1 << 13,
    INPUT_MAP = 1 << 14,
    MULTIPLIER = 1 << 15,
    KIND = 1 << 16,
    SELECT = 1 << 17,
    ACTIVATION = 1 << 18,
    DERIVATIVE = 1 << 19,
    DUAL = 1 << 20,
    ACCUMULATE = 1 << 21,
    GROUPS = 1 << 22,
    REPEAT = 1 << 23,
    AXIS = 1 << 24,
    WINNER_BYTES = 1 << 25,
    LRN_SIZE = 1 << 26,
    BORDER = 1 << 27,
    COEFFICIENT = 1 << 28,
    STABILIZER = 1 << 29,
    OTHER = 1 << 30, /* views */
    SHIFT = 1ll << 31,
    EPSILON = 1ll << 32, /* numbers */
    CENTRED = 1ll << 33,
    STEPS = 1ll << 34,
};

static const char *const FIELDS[] = {
    "out",         "factor",     "terms",       "x",      "y_prev",       "terms_prev", "m",
    "scale",       "weight",     "bias",        "bias_d", "taps",         "precision",  "weight_map",
    "input_map",   "multiplier", "factor_kind", "select", "activation",   "derivative", "dual",
    "accumulate",  "groups",     "repeat",      "axis",   "winner_bytes", "lrn_size",   "border",
    "coefficient", "stabilizer", "other",       "shift",  "epsilon",      "centred",    "n_steps",
};

enum {
    NEURON = FACTOR | TERMS | Y_PREV | TERMS_PREV | SCALE | BIAS | BIAS_D | TAPS | KIND | SELECT | ACTIVATION | DUAL |
             COEFFICIENT | STABILIZER,
    PRODUCT = M | MULTIPLIER | SCALE | TAPS | WEIGHT_MAP | ACCUMULATE | REPEAT,
    DENSE = GROUPS | PRECISION,
    TARGETS = ACCUMULATE | REPEAT,
};

/* What every operation needs, and what it takes besides.  conditions() adds what one field asks of another. */
#define FIELDS_OF(op, of, kernel, body, needs, takes) [DTD_##op] = {#op, needs, takes},
static const struct {
    const char *name;
    int64_t needs, takes;
} OPERATION[] = {OPERATIONS(FIELDS_OF)};

#define ONE(op, of, kernel, body, needs, takes) +1
_Static_assert(0 OPERATIONS(ONE) == DTD_N_OPS, "every operation has a row in operations.h");

static int64_t given_if(int given, int64_t field) { return given ? field : 0; }

static int64_t given_fields(const dtd_step *s)
{
    int border = 0;
    for (int i = 0; i < 6; i++)
        border |= s->border[i];
    return given_if(s->out.base >= 0, OUT) | given_if(s->factor.base >= 0, FACTOR) |
           given_if(s->terms.base >= 0, TERMS) | given_if(s->x.base >= 0, X) | given_if(s->y_prev.base >= 0, Y_PREV) |
           given_if(s->terms_prev.base >= 0, TERMS_PREV) | given_if(s->m.base >= 0, M) |
           given_if(s->scale.base >= 0, SCALE) | given_if(s->weight.base >= 0, WEIGHT) |
           given_if(s->bias.base >= 0, BIAS) | given_if(s->bias_d.base >= 0, BIAS_D) |
           given_if(s->taps.base >= 0, TAPS) | given_if(s->precision != DTD_FLOAT32, PRECISION) |
           given_if(s->weight_map != DTD_W || s->gamma != 0, WEIGHT_MAP) | given_if(s->input_map != 0, INPUT_MAP) |
           given_if(s->multiplier != DTD_M_NONE, MULTIPLIER) | given_if(s->factor_kind != DTD_F_NONE, KIND) |
           given_if(s->select != DTD_ANY_SIGN, SELECT) |
           given_if(s->activation != DTD_IDENTITY || s->act_alpha != 0 || s->act_beta != 0, ACTIVATION) |
           given_if(s->derivative, DERIVATIVE) | given_if(s->dual, DUAL) | given_if(s->accumulate, ACCUMULATE) |
           given_if(s->groups != 1, GROUPS) | given_if(s->repeat != 1, REPEAT) | given_if(s->axis, AXIS) |
           given_if(s->winner_bytes, WINNER_BYTES) |
           given_if(s->lrn_size || s->lrn_k != 0 || s->lrn_alpha != 0 || s->lrn_beta != 0, LRN_SIZE) |
           given_if(border, BORDER) | given_if(s->coefficient != 1, COEFFICIENT) |
           given_if(s->stabilizer != 0, STABILIZER) | given_if(s->other.base >= 0, OTHER) |
           given_if(s->shift.base >= 0, SHIFT) | given_if(s->epsilon != 0, EPSILON) | given_if(s->centred, CENTRED) |
           given_if(s->n_steps || s->block || s->local.base >= 0, STEPS);
}

/* What some values of a step's fields need of its other fields. */
static int64_t conditions(const dtd_step *s, int64_t given)
{
    int64_t needs = given & MULTIPLIER ? M : 0;
    needs |= s->n_taps ? TAPS & (OPERATION[s->op].needs | OPERATION[s->op].takes) : 0;
    if (s->op == DTD_MAP) {
        needs |= s->input_map == DTD_X_ONE ? 0 : X;
        needs |= s->input_map == DTD_X_ABOVE_LOW || s->input_map == DTD_X_BELOW_HIGH ? M : 0;
    } else if (s->op == DTD_FACTOR) {
        needs |= s->factor_kind == DTD_F_GATE ? X : 0;
        needs |= s->factor_kind == DTD_F_DERIVATIVE || s->factor_kind == DTD_F_SIGNED ||
                         s->factor_kind == DTD_F_PAIRED || given & SELECT
                     ? M
                     : 0;
    } else if (s->op == DTD_NORM_SCATTER) {
        needs |= s->derivative ? M : SCALE;
    } else if (s->op == DTD_ACCOUNT) {
        needs |= given & (KIND | FACTOR) ? KIND | FACTOR : 0;
        needs |= given & SELECT ? Y_PREV : 0;
    } else if (OPERATION[s->op].takes & KIND) {
        needs |= given & (KIND | FACTOR) ? KIND | FACTOR : 0;
        needs |= given & TERMS_PREV ? Y_PREV | DUAL : 0;
        needs |= s->op == DTD_NEURON_DENSE && given & (OTHER | SHIFT) ? OTHER | SHIFT : 0;
    }
    return needs;
}

/* Fields that an operation takes, but not together with the others that are given. */
static int64_t excluded(const dtd_step *s)
{
    if (s->op == DTD_NEURON_DENSE && s->other.base >= 0)
        return DUAL;
    return s->op == DTD_NORM_SCATTER && s->derivative ? SCALE | WEIGHT_MAP | MULTIPLIER : 0;
}

static _Thread_local char message[200];

static const char *refuse(const char *operation, const char *what, const char *field)
{
    snprintf(message, sizeof message, "%s %s %s", operation, what, field);
    return message;
}

static const char *first_of(int64_t fields) { return FIELDS[__builtin_ctzll((unsigned long long)fields)]; }

/* NULL, or the first number that stands for nothing. */
static const char *unknown(const dtd_step *s, const char *operation)
{
    const struct {
        int32_t value, least, count;
        const char *what;
    } numbers[] = {
        {s->precision, 0, DTD_N_PRECISIONS, "unknown precision"},
        {s->weight_map, 0, DTD_N_WEIGHT_MAPS, "unknown weight_map"},
        {s->input_map, 0, DTD_N_INPUT_MAPS, "unknown input_map"},
        {s->multiplier, 0, DTD_N_MULTIPLIERS, "unknown multiplier"},
        {s->factor_kind, 0, DTD_N_FACTORS, "unknown factor_kind"},
        {s->select, 0, DTD_N_SIGNS, "unknown select"},
        {s->activation, 0, DTD_N_ACTIVATIONS, "unknown activation"},
        {s->derivative, 0, 2, "unknown derivative"},
        {s->centred, 0, 2, "unknown centred"},
        {s->axis, 0, 6, "unknown axis"},
        {s->winner_bytes, 0, 3, "unknown winner_bytes"},
        {s->groups, 1, INT32_MAX, "impossible groups"},
        {s->repeat, 1, INT32_MAX, "impossible repeat"},
        {s->n_taps, 0, INT32_MAX, "impossible n_taps"},
        {s->lrn_size, 0, INT32_MAX, "impossible lrn_size"},
        {s->n_steps, 0, DTD_MOST_SLICED + 1, "impossible n_steps"},
        {s->block, 0, INT32_MAX, "impossible block"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < numbers[i].least || numbers[i].value >= numbers[i].count) {
            snprintf(message, sizeof message, "%s: %s %d", operation, numbers[i].what, numbers[i].value);
            return message;
        }
    return NULL;
}

/* Whether an operand's samples are those of out, or shared by the targets of a sample, or one that is repeated. */
static int samples_fit(const dtd_step *s, const dtd_view *v)
{
    const int64_t n = s->out.shape[AXIS_N], m = v->shape[AXIS_N];
    return v->base < 0 || m == n || m * s->repeat == n || v->stride[AXIS_N] == 0;
}

/* Whether views of a MATMUL or a norm, whose kernels share operands, or sums are of shapes that do not fit. */
static int shapes_differ(const dtd_step *s, const char *operation)
{
    const dtd_view *views[] = {&s->x, &s->m, &s->scale, &s->other, &s->shift};
    const char *const names[] = {"x", "m", "scale", "other", "shift"};
    const int64_t sums = s->op == DTD_SUMS ? 2 : s->op == DTD_ACCOUNT ? 8 : s->out.shape[AXIS_C];
    if (s->out.shape[AXIS_C] != sums) {
        snprintf(message, sizeof message, "%s: out has %lld sums, not %lld", operation, (long long)s->out.shape[AXIS_C],
                 (long long)sums);
        return 1;
    }
    const int64_t of_x = s->x.shape[AXIS_C], other = (s->op == DTD_WEIGHT_GRADIENT ? &s->m : &s->out)->shape[AXIS_C];
    if (s->groups > 1 && (of_x % s->groups || other % s->groups)) {
        snprintf(message, sizeof message, "%s: %d groups do not divide %lld and %lld channels", operation, s->groups,
                 (long long)of_x, (long long)other);
        return 1;
    }
    if (s->op < DTD_MATMUL || s->op > DTD_NORM_SCATTER)
        return 0;
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        if (!samples_fit(s, views[i])) {
            snprintf(message, sizeof message, "%s: %s has %lld samples, out %lld", operation, names[i],
                     (long long)views[i]->shape[AXIS_N], (long long)s->out.shape[AXIS_N]);
            return 1;
        }
    if (s->op == DTD_MATMUL && s->x.shape[AXIS_W] != s->other.shape[AXIS_H]) {
        snprintf(message, sizeof message, "%s: x has %lld columns, other %lld rows", operation,
                 (long long)s->x.shape[AXIS_W], (long long)s->other.shape[AXIS_H]);
        return 1;
    }
    return 0;
}

const char *dtd_refusal(const dtd_step *s, int bfloat16)
{
    if (s->op < 0 || s->op >= DTD_N_OPS) {
        snprintf(message, sizeof message, "unknown operation %d", s->op);
        return message;
    }
    const char *operation = OPERATION[s->op].name;
    if (unknown(s, operation))
        return message;
    const int64_t given = given_fields(s), needed = OPERATION[s->op].needs | conditions(s, given),
                  known = (needed | OPERATION[s->op].takes) & ~excluded(s);
    if (needed & ~given)
        return refuse(operation, "needs", first_of(needed & ~given));
    if (given & ~known)
        return refuse(operation, "does not take", first_of(given & ~known));
    if (shapes_differ(s, operation))
        return message;
    if (s->op == DTD_SLICED && s->out.cut && !s->block)
        return refuse(operation, "needs", "block");
    if (s->op == DTD_SLICED && s->n_taps && (!s->out.cut || s->n_taps != ceil_div(s->out.shape[s->out.cut], s->block)))
        return refuse(operation, "needs a range for each", "block");
    if (s->precision != DTD_FLOAT32 && !bfloat16)
        return "this instruction set has no bfloat16";
    return NULL;
}
