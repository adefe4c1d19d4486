/* The machine's peaks of float32 multiply-adds and of bfloat16 products on matrix units (0 without), and its copy bandwidth, as one line of
 * JSON.  Argument: the number of threads. */
#define _GNU_SOURCE
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__x86_64__)
#define REGISTER "v"
#else
#define REGISTER "w" /* AArch64 */
#endif
typedef float vector __attribute__((vector_size(BYTES)));

/* bytes of a core that fit its first and second cache, and its share of a common one */
enum { LEVELS = 3 };
static const size_t SIZES[LEVELS] = {32 << 10, 512 << 10, 8 << 20};

enum { LANES = BYTES / sizeof(float), CHAINS = 12, ROUNDS = 7 };  /* 12 chains hide the latency and fit 16 registers */

/* a[i] = a[i] * x + y, CHAINS independent chains per thread */
static double multiply_adds(long steps, int n_threads)
{
    double start = omp_get_wtime();
    #pragma omp parallel num_threads(n_threads)
    {
        vector a[CHAINS], x = {0}, y = {0};
        #pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            a[i] = x + (float)(i + omp_get_thread_num());
        x += 0.999f;
        y += 1e-3f;
        for (long k = 0; k < steps; k++)
            #pragma GCC unroll 16 /* else the chains stay an array in memory */
            for (int i = 0; i < CHAINS; i++) {
                a[i] = a[i] * x + y;
                __asm__ volatile("" : "+" REGISTER(a[i]));  /* keeps every chain alive, and in a register */
            }
    }
    return 2.0 * LANES * CHAINS * (double)steps * n_threads / (omp_get_wtime() - start);
}

#if defined(__AMX_BF16__) && defined(__linux__)
/* 16 x 16 sums of 32 products each; six independent tiles of sums, since latency is that of more than three products */
static double tile_products(long steps, int n_threads)
{
    enum { REQUEST_STATE = 0x1023, TILE_DATA = 18, ROWS = 16, ROW_BYTES = 64, SUMS = 6, FLOPS = 2 * 16 * 16 * 32 };
    struct {
        unsigned char palette, start_row, reserved[14];
        unsigned short row_bytes[16];
        unsigned char rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = ROW_BYTES;
        shape.rows[i] = ROWS;
    }
    if (syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA))
        return 0;
    double start = omp_get_wtime();
    #pragma omp parallel num_threads(n_threads)
    {
        __asm__ volatile("" : : "m"(shape)); /* all of it is read, though the intrinsic of some compilers names 8 bytes */
        _tile_loadconfig(&shape);            /* every register starts as zeros */
        for (long k = 0; k < steps; k++) {
            _tile_dpbf16ps(0, 6, 7);
            _tile_dpbf16ps(1, 6, 7);
            _tile_dpbf16ps(2, 6, 7);
            _tile_dpbf16ps(3, 6, 7);
            _tile_dpbf16ps(4, 6, 7);
            _tile_dpbf16ps(5, 6, 7);
        }
        _tile_release();
    }
    return (double)FLOPS * SUMS * (double)steps * n_threads / (omp_get_wtime() - start);
}
#else
static double tile_products(long steps, int n_threads) { return 0 * steps * n_threads; }
#endif

/* Bytes read and written of a core's memory, `size` of it in all, again and again: from the cache that it fits into. */
static double copied_again(char *to, const char *from, size_t size, int n_threads)
{
    const size_t part = size / 2, repeats = ((size_t)64 << 20) / part;
    double start = omp_get_wtime();
    #pragma omp parallel for num_threads(n_threads)
    for (int i = 0; i < n_threads; i++)
        for (size_t k = 0; k < repeats; k++) {
            memcpy(to + part * i, from + part * i, part);
            __asm__ volatile("" : : "r"(to), "r"(from) : "memory"); /* each copy is made */
        }
    return 2.0 * (double)(part * repeats) * n_threads / (omp_get_wtime() - start);
}

/* bytes read and written */
static double copied(char *restrict to, const char *restrict from, size_t size, int n_threads)
{
    double start = omp_get_wtime();
    #pragma omp parallel for num_threads(n_threads)
    for (int i = 0; i < n_threads; i++)
        memcpy(to + size / n_threads * i, from + size / n_threads * i, size / n_threads);
    return 2.0 * (double)size / (omp_get_wtime() - start);
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : omp_get_max_threads();
    size_t size = (size_t)256 << 20;
    char *from = malloc(size), *to = malloc(size);
    if (!from || !to)
        return 1;
    memset(from, 1, size);
    memset(to, 2, size);
    double flops = 0, tile_flops = 0, bandwidth = 0, cached[LEVELS] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        double f = multiply_adds(50 * 1000 * 1000, n_threads), t = tile_products(2 * 1000 * 1000, n_threads);
        double b = copied(to, from, size, n_threads);
        flops = f > flops ? f : flops;
        tile_flops = t > tile_flops ? t : tile_flops;
        bandwidth = b > bandwidth ? b : bandwidth;
        for (int level = 0; level < LEVELS; level++) {
            double c = copied_again(to, from, SIZES[level], n_threads);
            cached[level] = c > cached[level] ? c : cached[level];
        }
    }
    printf("{\"threads\": %d, \"lanes\": %d, \"gflops\": %.1f, \"tile_gflops\": %.1f, \"copy_gb_per_s\": %.1f, \"cached\": [", n_threads,
           (int)LANES, flops / 1e9, tile_flops / 1e9, bandwidth / 1e9);
    for (int level = 0; level < LEVELS; level++)
        printf("%s[%zu, %.1f]", level ? ", " : "", SIZES[level], cached[level] / 1e9);
    printf("]}\n");
    return 0;
}
