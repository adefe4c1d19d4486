/* dtdfast.h: the ABI: everything that Python and the kernels share.
 *
 * Python writes a plan as an array of dtd_step; dtd_run executes a range of it.  An address is (base, offset): bases[]
 * is a table of pointers given with each call (arena, arrays of the caller, packed weights).  Offsets and strides count
 * elements.  The kernels allocate nothing, keep nothing and print nothing.
 */
#ifndef DTDFAST_H
#define DTDFAST_H

#include <stdint.h>

#define DTD_BLOCK 16       /* output channels per block of packed weights */
#define DTD_MOST_SLICED 12 /* steps that one SLICED runs */

#define DTD_SCRATCH 0               /* bases[DTD_SCRATCH]: memory that kernels may use within a step, or NULL */
#define DTD_SCRATCH_BYTES (4 << 20) /* of each thread, where the instruction set asks for it */

/* An array seen through strides; axes are (n, c, d, h, w, extra).  base < 0: absent. */
typedef struct {
    int64_t base, offset;
    int64_t shape[6], stride[6];
    int64_t cut;  /* in a step of SLICED: the axis that is cut into blocks; 0: none */
    int64_t span; /* likewise: the axis of which a block has a range of its own; 0: none */
} dtd_view;

/* A vector or a packed block; base < 0: absent. */
typedef struct {
    int64_t base, offset;
} dtd_ref;

typedef enum {
    DTD_CLEAR_BORDER,   /* zero the frame of width border[] around out */
    DTD_MOVE,           /* out (+)= x, any strides */
    DTD_CONVERT,        /* out = x, which is of the other type (dtd_real), any strides */
    DTD_MAP,            /* out = map(x), see dtd_input_map */
    DTD_NEURON_DENSE,   /* y = b + sum_i x_i w_ij; out = act(y), factor, terms */
    DTD_NEURON_CHANNEL, /* the same, one weight per tap and channel */
    DTD_NEURON_LINEAR,  /* the same, weight rows (n_out, n_in) in place */
    DTD_TAPS_DENSE,     /* out (+)= multiplier * sum_i x_i wm(w_ij) */
    DTD_TAPS_CHANNEL,
    DTD_TAPS_LINEAR,
    DTD_SCATTER_LINEAR, /* out[n,i] (+)= multiplier * sum_j wm(w[j,i]) * x[n,j] */
    DTD_FACTOR,         /* factor from terms, see dtd_factor */
    DTD_MULTIPLY,       /* out (+)= multiplier(m) * x */
    DTD_DIVIDE,         /* out (+)= x / m, 0 where m is 0 or has not the sign of `select` */
    DTD_ACTIVATE,       /* out = act(x), or act'(x) */
    DTD_AFFINE,         /* out (+)= x * weight[c] + bias[c] */
    DTD_LRN,
    DTD_LENGTH,       /* out[g] = sqrt(sum x[c]^2) over the channels of block g */
    DTD_SOFTMAX,      /* over the axis `axis`; factor, m: (maximum, 1 / sum) of each line */
    DTD_LOG_SOFTMAX,  /* its logarithm */
    DTD_MAX_POOL,     /* out = max over taps of x, m = number of the winning tap */
    DTD_MAX_UNPOOL,   /* out (+)= sum over windows won by this element */
    DTD_MAX_SCATTER,  /* the same, all of out at once, where every element has one window */
    DTD_EMBED,        /* out[..., :] = weight[ids, :] */
    DTD_EMBED_SUM,    /* out = sum over the last axis of x * m */
    DTD_MATMUL,       /* out (+)= coefficient * multiplier * x other, per (n, c, d): rows are h, columns w */
    DTD_NORM,         /* out = (x - mean x) * rho * other + shift along c, rho = 1/sqrt(variance + epsilon) */
    DTD_NORM_TAPS,    /* out[j] (+)= sum_i x[i] wm(m_ij), the matrix m of that norm, see norm.c */
    DTD_NORM_SCATTER, /* out[i] (+)= multiplier * sum_j wm(m_ij) x[j], or its true derivative */
    DTD_SOFTMAX_BACK, /* out (+)= coefficient * m * (x - sum m x) over the axis `axis` */
    DTD_MAP_WEIGHT,   /* out = wm(x), but for "1": 1 where x is not 0 */
    DTD_SUMS,         /* out = sums of multiplier(m) * x and of its absolute values, in double, see sums.c */
    DTD_ACCOUNT,      /* out = sums of what neurons absorb of x, in double, see sums.c */
    DTD_SLICED,       /* the n_steps steps behind it, slice by slice of out, see sliced.c */
    /* out += sums over samples and positions of x m, in double, see weight_gradient.c */
    DTD_WEIGHT_GRADIENT,
    DTD_N_OPS
} dtd_op;

/* wm(w) */
typedef enum {
    DTD_W,                /* w */
    DTD_W_POSITIVE,       /* w+ */
    DTD_W_NEGATIVE,       /* w- (<= 0) */
    DTD_W_SQUARE,         /* w^2 */
    DTD_W_ONE,            /* 1 */
    DTD_W_ABS,            /* |w| */
    DTD_W_GAMMA_POSITIVE, /* w + gamma w+ */
    DTD_W_GAMMA_NEGATIVE, /* w + gamma w- */
    DTD_N_WEIGHT_MAPS
} dtd_weight_map;

/* MAP: map(x) */
typedef enum {
    DTD_X_POSITIVE,   /* x+ */
    DTD_X_NEGATIVE,   /* x- */
    DTD_X_ABOVE_LOW,  /* x - m, where m is the lower bound; x+ where m is -inf, 0 where it is +inf */
    DTD_X_BELOW_HIGH, /* x - m, where m is the upper bound; x- where m is +inf, 0 where it is -inf */
    DTD_X_ONE,        /* 1 */
    DTD_X_ABS,        /* |x| */
    DTD_N_INPUT_MAPS
} dtd_input_map;

/* multiplier(m) */
typedef enum {
    DTD_M_NONE,           /* 1 */
    DTD_M_TIMES,          /* m */
    DTD_M_POSITIVE,       /* 1[m > 0] */
    DTD_M_NEGATIVE,       /* 1[m < 0] */
    DTD_M_TIMES_POSITIVE, /* m+ */
    DTD_M_TIMES_NEGATIVE, /* m- */
    DTD_M_SIGN,           /* -1 where m < 0, else 1 */
    DTD_M_ABSOLUTE,       /* |m| */
    DTD_N_MULTIPLIERS
} dtd_multiplier;

/* what NEURON_* and FACTOR store; d = terms + bias_d + stabilizer * sgn(terms + bias_d), sgn 0 = +1 */
typedef enum {
    DTD_F_NONE,
    DTD_F_GATE,        /* coefficient * act(y) / d * scale, 0 where d is 0 or not selected */
    DTD_F_DENOMINATOR, /* d / (coefficient * scale), 0 where not selected */
    DTD_F_DERIVATIVE,  /* act'(y) * scale */
    /* (terms + stabilizer) / scale where y >= 0, (min(0, y - bias - terms) - stabilizer) / scale where y < 0 */
    DTD_F_SIGNED,
    /* FACTOR alone: y + bias_d' + coefficient·sgn(y)·(terms + |bias_d'|), y without the bias; sgn 0 = 1, or with the
     * select NONZERO the result is 0 where y is 0.  terms = sum |x w| */
    DTD_F_PAIRED,
    DTD_N_FACTORS
} dtd_factor;

/* of products: as float32 makes them, in bfloat16, or in bfloat16 where they make the terms of a dual step alone */
typedef enum { DTD_FLOAT32, DTD_BFLOAT16, DTD_BFLOAT16_TERMS, DTD_N_PRECISIONS } dtd_precision;

/* the sign that y must have (NEURON_*, FACTOR), or m (DIVIDE): the result is 0 where it has not */
typedef enum { DTD_ANY_SIGN, DTD_POSITIVE, DTD_NEGATIVE, DTD_NONZERO, DTD_N_SIGNS } dtd_sign;

typedef enum {
    DTD_IDENTITY,
    DTD_RELU,
    DTD_LEAKY_RELU,
    DTD_CLIP,
    DTD_THRESHOLD,
    DTD_HARD_SHRINK,
    DTD_SOFT_SHRINK,
    DTD_TANH_SHRINK,
    DTD_ELU,
    DTD_SELU,
    DTD_CELU,
    DTD_SILU,
    DTD_GELU,
    DTD_GELU_TANH,
    DTD_MISH,
    DTD_SIGMOID,
    DTD_HARD_SIGMOID,
    DTD_LOG_SIGMOID,
    DTD_HARD_SWISH,
    DTD_TANH,
    DTD_SOFTPLUS,
    DTD_SOFTSIGN,
    DTD_N_ACTIVATIONS
} dtd_activation;

/* One step.  operations.h says which fields each operation needs and takes; all others keep their defaults: views and
 * refs absent (base -1), groups, repeat and coefficient 1, numbers 0. */
typedef struct {
    int32_t op, precision;                   /* dtd_op, dtd_precision */
    int32_t weight_map, input_map;           /* dtd_weight_map, dtd_input_map */
    int32_t multiplier, factor_kind, select; /* dtd_multiplier, dtd_factor, dtd_sign */
    int32_t activation, derivative;          /* dtd_activation; ACTIVATE, NORM_SCATTER: the derivative instead */
    int32_t dual;                            /* NEURON_*: terms from w+, beside y from w */
    int32_t accumulate;                      /* out += .. instead of out = .. */
    int32_t groups, n_taps, repeat;          /* repeat: targets per sample */
    int32_t axis;                            /* of out (EMBED_SUM: of x) that a step works along */
    int32_t winner_bytes;                    /* of a winner of a max-pool: 1 or 2 */
    int32_t lrn_size;                        /* channels of a sum */
    int32_t centred;                         /* NORM*: the mean is subtracted */
    int32_t n_steps, block;                  /* SLICED: its steps, which follow it, and the length of a block */
    int32_t x_step[3], border[6];            /* d, h, w; border: before and after of each */
    double coefficient, stabilizer, gamma, epsilon;
    double act_alpha, act_beta;        /* parameters of the activation */
    double lrn_k, lrn_alpha, lrn_beta; /* out = x / (k + alpha · sum x²)^beta */
    /* other: a second operand; of NEURON_DENSE it is x+ and shift is x-, and terms = sum x+ w+ + sum x- w- */
    dtd_view out, factor, terms, x, y_prev, terms_prev, m, scale, other, shift;
    dtd_ref weight, bias, bias_d, taps;
    dtd_ref
        local; /* SLICED: memory of each thread, where views with this base lie; offset: how much of it, in elements */
} dtd_step;

/* What all numbers of a run are: those of its arrays, and those that it computes with. */
typedef enum { DTD_F4, DTD_F8, DTD_N_REALS } dtd_real; /* float, double */

/* A batch in pieces, which go through the steps on one thread each; the steps are those of a whole piece. */
typedef struct {
    int64_t count, samples, last_samples; /* pieces, samples of each, and of the last, which may have fewer */
    int64_t n_bases;                      /* a piece's table of pointers, the next one's follows it */
} dtd_pieces;

/* Run steps first .. last-1 with the kernels of instruction set `isa` for `real` on n_threads threads, which share
 * every step, or (`pieces` not NULL) take a piece each; NULL, or a message that C owns. */
const char *dtd_run(int isa, int real, const dtd_step *steps, int64_t first, int64_t last, void *const *bases,
                    int n_threads, const dtd_pieces *pieces);

/* The name of the body that runs a step, of those that an operation has; NULL if it has one alone, or no such choice.
 * The choice is DTD_BY_SHAPE: by the shape alone; 1, 2 ..: a body that runs instead if x is mostly 0; DTD_BY_DATA: with
 * the x that is in memory now.  A choice by shape reads the taps, and otherwise asks whether bases[DTD_SCRATCH] is
 * NULL. */
typedef enum { DTD_BY_DATA = -1, DTD_BY_SHAPE = 0 } dtd_choice;
const char *dtd_body(int isa, int real, const dtd_step *step, void *const *bases, int choice);

int dtd_isa_count(void);
const char *dtd_isa_name(int isa); /* "baseline", "avx2", "avx512", ... slowest first */
int dtd_isa_usable(int isa);       /* 1 when this CPU runs it */
int64_t dtd_isa_scratch(int isa);  /* bytes of scratch memory that it wants per thread */
int dtd_isa_fastest(void);         /* of those that this CPU runs */
int dtd_isa_bfloat16(int isa);     /* 1 when it takes steps in bfloat16 */
const char *dtd_compiler(void);
int dtd_openmp_version(void); /* 0 without OpenMP */
int dtd_max_threads(void);    /* what OpenMP was told to use at most; 1 without OpenMP */
int dtd_step_size(void);      /* sizeof(dtd_step), checked by Python */

/* So many of n_threads threads can be had by regions of the thread that calls, with the stack that kernels need: OpenMP
 * ends the process where it can start none. */
int dtd_secure_threads(int n_threads);

/* A sum over pairs of 64-bit words that changes where words change or change places; the same for any number of
 * threads. */
uint64_t dtd_checksum(const void *pairs, int64_t n_pairs, int n_threads);

/* Weights as kernels read them: packed[group][block of outputs][tap][input][lane] = weight[group · group_step + output
 * · output_step + input · input_step + taps[tap]], and 0 in lanes beyond the outputs. */
typedef struct {
    const void *weight;
    void *packed;
    int32_t weight_real, packed_real;        /* dtd_real */
    int64_t groups, outputs, inputs, n_taps; /* outputs and inputs: of a group */
    int64_t lanes;                           /* DTD_BLOCK; 1: rows */
    int64_t group_step, output_step, input_step;
    const int64_t *taps;
} dtd_packing;

/* 1, or 0 where a number of the result is NaN or infinite. */
int dtd_pack(const dtd_packing *packing, int n_threads);

/* Offsets of n buffers of a size, each used from step first to step last: in this order, each at the lowest place free
 * throughout its life. `order` is memory for n numbers. Returns the end of the highest. */
int64_t dtd_place(int64_t n, const int64_t *size, const int64_t *first, const int64_t *last, int64_t *offset,
                  int64_t *order);

#endif
