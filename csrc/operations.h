/* operations.h: every operation: its kernel, its bodies, the fields that it needs and those that it takes besides.
 *
 * A new operation is a row here, a member of dtd_op (dtdfast.h), and a kernel. */
#ifndef DTDFAST_OPERATIONS_H
#define DTDFAST_OPERATIONS_H

/* op, NAME or UNIT (of a library that is compiled with other flags), kernel, what names its bodies, needs, takes */
#define OPERATIONS(ROW)                                                                                                \
    ROW(CLEAR_BORDER, NAME, clear_border, NULL, OUT, BORDER)                                                           \
    ROW(MOVE, NAME, move, NULL, OUT | X, TARGETS)                                                                      \
    ROW(CONVERT, NAME, convert, NULL, OUT | X, 0)                                                                      \
    ROW(MAP, NAME, map, NULL, OUT, X | M | INPUT_MAP)                                                                  \
    ROW(NEURON_DENSE, UNIT, neuron_dense, UNIT(dense_body), OUT | X | WEIGHT, NEURON | DENSE | OTHER | SHIFT)          \
    ROW(NEURON_CHANNEL, NAME, neuron_channel, NULL, OUT | X, NEURON | WEIGHT | GROUPS)                                 \
    ROW(NEURON_LINEAR, NAME, neuron_linear, NULL, OUT | X | WEIGHT, NEURON)                                            \
    ROW(TAPS_DENSE, UNIT, taps_dense, UNIT(dense_body), OUT | X | WEIGHT, PRODUCT | DENSE)                             \
    ROW(TAPS_CHANNEL, NAME, taps_channel, NULL, OUT | X, PRODUCT | WEIGHT | GROUPS)                                    \
    ROW(TAPS_LINEAR, NAME, taps_linear, NULL, OUT | X | WEIGHT, PRODUCT)                                               \
    ROW(SCATTER_LINEAR, NAME, scatter_linear, NAME(scatter_body), OUT | X | WEIGHT, PRODUCT & ~SCALE)                  \
    ROW(FACTOR, NAME, factor, NULL, FACTOR | TERMS | KIND,                                                             \
        OUT | X | M | TERMS_PREV | SCALE | BIAS | BIAS_D | SHIFT | OTHER | SELECT | ACTIVATION | COEFFICIENT |         \
            STABILIZER)                                                                                                \
    ROW(MULTIPLY, NAME, multiply, NULL, OUT | X, M | MULTIPLIER | COEFFICIENT | TARGETS)                               \
    ROW(DIVIDE, NAME, divide, NULL, OUT | X | M, SELECT | TARGETS)                                                     \
    ROW(ACTIVATE, NAME, activate, NULL, OUT | X, M | ACTIVATION | DERIVATIVE)                                          \
    ROW(AFFINE, NAME, affine, NULL, OUT | X | WEIGHT, BIAS | ACCUMULATE)                                               \
    ROW(LRN, NAME, lrn, NULL, OUT | X | LRN_SIZE, 0)                                                                   \
    ROW(LENGTH, NAME, length, NULL, OUT | X, 0)                                                                        \
    ROW(SOFTMAX, NAME, softmax, NULL, OUT | X | AXIS, OTHER | COEFFICIENT | FACTOR | M)                                \
    ROW(LOG_SOFTMAX, NAME, log_softmax, NULL, OUT | X | AXIS, 0)                                                       \
    ROW(MAX_POOL, NAME, max_pool, NULL, OUT | X | TAPS | WINNER_BYTES, M)                                              \
    ROW(MAX_UNPOOL, NAME, max_unpool, NULL, OUT | X | M | TAPS | WINNER_BYTES, FACTOR | TARGETS)                       \
    ROW(MAX_SCATTER, NAME, max_scatter, NULL, OUT | X | M | TAPS | WINNER_BYTES, FACTOR | TARGETS)                     \
    ROW(EMBED, NAME, embed, NULL, OUT | X | WEIGHT | AXIS, 0)                                                          \
    ROW(EMBED_SUM, NAME, embed_sum, NULL, OUT | X | AXIS, M | TARGETS)                                                 \
    ROW(MATMUL, NAME, matmul, NULL, OUT | X | OTHER, M | MULTIPLIER | COEFFICIENT | TARGETS)                           \
    ROW(NORM, NAME, norm, NULL, OUT | X, FACTOR | OTHER | SHIFT | EPSILON | CENTRED)                                   \
    ROW(NORM_TAPS, NAME, norm_taps, NULL, OUT | X | SCALE, OTHER | WEIGHT_MAP | CENTRED | TARGETS)                     \
    ROW(NORM_SCATTER, NAME, norm_scatter, NULL, OUT | X,                                                               \
        SCALE | OTHER | M | WEIGHT_MAP | MULTIPLIER | DERIVATIVE | EPSILON | CENTRED | TARGETS)                        \
    ROW(SOFTMAX_BACK, NAME, softmax_back, NULL, OUT | X | M | AXIS, COEFFICIENT | TARGETS | FACTOR | SCALE)            \
    ROW(MAP_WEIGHT, NAME, map_weight, NULL, OUT | X, WEIGHT_MAP)                                                       \
    ROW(SUMS, NAME, sums, NULL, OUT | X, M | MULTIPLIER)                                                               \
    ROW(ACCOUNT, NAME, account, NULL, OUT | X,                                                                         \
        M | FACTOR | KIND | TERMS | TERMS_PREV | Y_PREV | BIAS | SHIFT | BIAS_D | OTHER | SCALE | SELECT |             \
            COEFFICIENT | STABILIZER | WEIGHT_MAP)                                                                     \
    ROW(SLICED, NAME, sliced, NULL, OUT | STEPS, TAPS)                                                                 \
    ROW(WEIGHT_GRADIENT, NAME, weight_gradient, NULL, OUT | X | M | TAPS, GROUPS)

#endif
