// Matrix products of the training pass, for two kinds of numbers: float, and bfloat16 summed in float where the
// processor has AMX. Rows, columns and depths come in blocks of 32: callers pad with zeros.
//
// The right-hand side of a product is packed into panels of 32 columns. The sum over the depth runs in one order for
// every row, so a result depends on nothing but its row, its column and the depth.
#pragma once

#include "vectors.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

constexpr int64_t BLOCK = 32;
static inline int64_t whole(int64_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

static inline vf load(const float* p, int64_t i) { return load(p + i); }
static inline void put(float* p, vf x) { store(p, x); }
// Two vectors that are always used together: 2 * W numbers.
static inline void put_pair(float* p, vf x, vf y) {
  store(p, x);
  store(p + W, y);
}
static inline void load_pair(const float* p, vf& x, vf& y) {
  x = load(p);
  y = load(p + W);
}
static inline vf exponential(const float*, vf x) { return vexp(x); }
static inline vf reciprocal(const float*, vf x) { return 1.0f / x; }

// to[j][i] = from[i][j] for a square of 16 x 16 words; rows from `valid` on read as zeros.
static inline void turn_square(const uint32_t* from, int64_t ld, int64_t valid, uint32_t* to, int64_t ld_to);

#if defined(__AVX512F__)
static inline void turn_vectors(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int c = 0; c < 4; c++) {
    const __m512i even = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), odd = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i even2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    const __m512i odd2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(even, even2, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(even, even2, 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
  }
  for (int i = 0; i < 16; i++) r[i] = t[i];
}

static inline void turn_square(const uint32_t* from, int64_t ld, int64_t valid, uint32_t* to, int64_t ld_to) {
  __m512i r[16];
  for (int i = 0; i < 16; i++) r[i] = i < valid ? _mm512_loadu_si512(from + i * ld) : _mm512_setzero_si512();
  turn_vectors(r);
  for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * ld_to, r[i]);
}
#else
static inline void turn_square(const uint32_t* from, int64_t ld, int64_t valid, uint32_t* to, int64_t ld_to) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) to[j * ld_to + i] = i < valid ? from[i * ld + j] : 0;
}
#endif

static inline const uint32_t* words(const void* p) { return static_cast<const uint32_t*>(p); }
static inline uint32_t* words(void* p) { return static_cast<uint32_t*>(p); }

// Panels of B[k][n] = x[k][n]: `valid` rows of x, zeros up to `depth`.
static void pack_rows(const float* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, float* to,
                      int64_t stride) {
  for (int64_t p = 0; p < columns; p += BLOCK, to += stride)
    for (int64_t k = 0; k < depth; k++)
      if (k < valid)
        std::memcpy(to + k * BLOCK, x + k * ld + p, sizeof(float) * BLOCK);
      else
        std::memset(to + k * BLOCK, 0, sizeof(float) * BLOCK);
}

// Panels of B[k][n] = x[n][k]: `valid` rows of x, zeros up to `columns`.
static void pack_columns(const float* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, float* to,
                         int64_t stride) {
  for (int64_t n = 0; n < columns; n += 16)
    for (int64_t k = 0; k < depth; k += 16)
      turn_square(words(x + n * ld + k), ld, valid - n, words(to + n / BLOCK * stride + k * BLOCK + n % BLOCK), BLOCK);
}

// to[m][k] = x[k][m]: `valid` rows of x, zeros up to `depth`. Rows are `ld_to` numbers apart, blocks of 32 depths `step`.
static void turn_rows(const float* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, float* to,
                      int64_t ld_to, int64_t step = BLOCK) {
  for (int64_t m = 0; m < columns; m += 16)
    for (int64_t k = 0; k < depth; k += 16)
      turn_square(words(x + k * ld + m), ld, valid - k, words(to + m * ld_to + k / BLOCK * step + k % BLOCK), ld_to);
}

// c [rows, 32 * panels] = (ADD ? c : 0) + a [rows, depth] B. Rows of a are `lda` numbers apart and its blocks of 32
// depths `step`; panels of B are `stride` apart.
template <bool ADD>
static void product(int64_t rows, int64_t panels, int64_t depth, const float* a, int64_t lda, int64_t step,
                    const float* b, int64_t stride, float* c, int64_t ldc) {
  constexpr int R = W == 8 ? 4 : 8;  // 16 accumulators of 32 registers, 8 of 16 with AVX2
  for (int64_t p = 0; p < panels; p++)
    for (int64_t column = 0; column < BLOCK; column += 2 * W)
      for (int64_t m = 0; m < rows; m += R) {
        const float *from = a + m * lda, *panel = b + p * stride + column;
        float* to = c + m * ldc + p * BLOCK + column;
        vf sums[R][2];
        for (int r = 0; r < R; r++)
          for (int j = 0; j < 2; j++) sums[r][j] = ADD ? load(to + r * ldc + j * W) : vf{};
        for (int64_t block = 0; block < depth; block += BLOCK, from += step)
          for (int64_t k = 0; k < BLOCK; k++, panel += BLOCK) {
            const vf b0 = load(panel), b1 = load(panel + W);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
              const vf x = splat(from[r * lda + k]);
              sums[r][0] += x * b0;
              sums[r][1] += x * b1;
            }
          }
        for (int r = 0; r < R; r++)
          for (int j = 0; j < 2; j++) store(to + r * ldc + j * W, sums[r][j]);
      }
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#define R1KIT_BF16 1
typedef uint16_t bf16;

static inline vf load(const bf16* p, int64_t i) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
  return reinterpret_cast<vf>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline void put(bf16* p, vf x) {
  const __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(half));
}
// In turn, so that either comes back by one operation.
static inline void put_pair(bf16* p, vf x, vf y) {
  alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(y), reinterpret_cast<__m512>(x));
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), _mm512_permutexvar_epi16(_mm512_load_si512(order), reinterpret_cast<__m512i>(both)));
}
static inline void load_pair(const bf16* p, vf& x, vf& y) {
  const __m512i both = _mm512_loadu_si512(p);
  x = reinterpret_cast<vf>(_mm512_slli_epi32(both, 16));
  y = reinterpret_cast<vf>(_mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000))));
}
// To 2^-13, finer than bfloat16: 2^t = 2^floor(t) * a polynomial in the rest.
static inline vf exponential(const bf16*, vf x) {
  const __m512 t = reinterpret_cast<__m512>(x * 1.44269504f);
  const vf f = reinterpret_cast<vf>(_mm512_reduce_ps(t, 1));
  const vf p = ((f * 0.07802451f + 0.22606718f) * f + 0.69583353f) * f + 0.99992522f;
  return reinterpret_cast<vf>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), t));
}
static inline vf reciprocal(const bf16*, vf x) {
  return reinterpret_cast<vf>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
}

// A panel holds, for 32 depths after another, two tiles of 16 columns: [16 pairs of depths, 16 columns, 2].
static void pack_rows(const bf16* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, bf16* to,
                      int64_t stride) {
  alignas(64) uint16_t low[32], high[32];
  for (int i = 0; i < 32; i++) {
    low[i] = uint16_t(i / 2 + (i % 2) * 32);
    high[i] = uint16_t(low[i] + 16);
  }
  const __m512i first = _mm512_load_si512(low), second = _mm512_load_si512(high), zero = _mm512_setzero_si512();
  for (int64_t p = 0; p < columns; p += BLOCK, to += stride)
    for (int64_t k = 0; k < depth; k += 2) {
      const __m512i a = k < valid ? _mm512_loadu_si512(x + k * ld + p) : zero;
      const __m512i b = k + 1 < valid ? _mm512_loadu_si512(x + (k + 1) * ld + p) : zero;
      bf16* at = to + k / BLOCK * BLOCK * BLOCK + k % BLOCK / 2 * BLOCK;
      _mm512_storeu_si512(at, _mm512_permutex2var_epi16(a, first, b));
      _mm512_storeu_si512(at + 512, _mm512_permutex2var_epi16(a, second, b));
    }
}

static void pack_columns(const bf16* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, bf16* to,
                         int64_t stride) {
  for (int64_t n = 0; n < columns; n += 16)
    for (int64_t k = 0; k < depth; k += BLOCK) {
      bf16* tile = to + n / BLOCK * stride + k * BLOCK + n % BLOCK / 16 * 512;
      turn_square(words(x + n * ld + k), ld / 2, valid - n, words(tile), 16);
    }
}

static void turn_rows(const bf16* x, int64_t ld, int64_t valid, int64_t depth, int64_t columns, bf16* to,
                      int64_t ld_to, int64_t step = BLOCK) {
  const auto row = [&](int64_t k, int64_t m) {
    if (k >= valid) return _mm512_setzero_si512();
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k * ld + m)));
  };
  for (int64_t m = 0; m < columns; m += 16)
    for (int64_t k = 0; k < depth; k += BLOCK) {
      __m512i r[16];
      for (int i = 0; i < 16; i++)
        r[i] = _mm512_or_si512(row(k + 2 * i, m), _mm512_slli_epi32(row(k + 2 * i + 1, m), 16));
      turn_vectors(r);
      for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + (m + i) * ld_to + k / BLOCK * step, r[i]);
    }
}

// Eight tiles of 16 rows of 64 bytes for the time this object lives; what was configured before is put back.
struct Tiles {
  alignas(64) uint8_t before[64] = {};
  Tiles() {
    alignas(64) uint8_t shape[64] = {1};
    for (int i = 0; i < 8; i++) {
      shape[16 + 2 * i] = 64;
      shape[48 + i] = 16;
    }
    asm volatile("" ::: "memory");  // the compiler is told of 8 of the 64 bytes only
    _tile_storeconfig(before);
    _tile_loadconfig(shape);
    asm volatile("" ::: "memory");
  }
  ~Tiles() {
    asm volatile("" ::: "memory");
    if (before[0])
      _tile_loadconfig(before);
    else
      _tile_release();
  }
};

template <bool ADD>
static void product(int64_t rows, int64_t panels, int64_t depth, const bf16* a, int64_t lda, int64_t step,
                    const bf16* b, int64_t stride, float* c, int64_t ldc) {
  asm volatile("" ::: "memory");  // the tile loads do not tell the compiler that they read memory
  for (int64_t p = 0; p < panels; p++)
    for (int64_t m = 0; m < rows; m += BLOCK) {
      const bf16 *upper = a + m * lda, *lower = upper + 16 * lda, *panel = b + p * stride;
      float *to = c + m * ldc + p * BLOCK, *under = to + 16 * ldc;
      if (ADD) {
        _tile_loadd(0, to, 4 * ldc);
        _tile_loadd(1, to + 16, 4 * ldc);
        _tile_loadd(2, under, 4 * ldc);
        _tile_loadd(3, under + 16, 4 * ldc);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int64_t k = 0; k < depth; k += BLOCK, upper += step, lower += step, panel += BLOCK * BLOCK) {
        _tile_loadd(4, upper, 2 * lda);
        _tile_loadd(6, panel, 64);
        _tile_loadd(7, panel + 512, 64);
        _tile_loadd(5, lower, 2 * lda);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, to, 4 * ldc);
      _tile_stored(1, to + 16, 4 * ldc);
      _tile_stored(2, under, 4 * ldc);
      _tile_stored(3, under + 16, 4 * ldc);
    }
}
#endif

// While it lives, numbers too small for a normal float count as 0: the processor takes a hundred cycles for each, and
// attention's weights are full of them.
struct FlushTiny {
#if defined(__SSE__)
  const unsigned before = __builtin_ia32_stmxcsr();
  FlushTiny() { __builtin_ia32_ldmxcsr(before | 0x8040); }  // results, and what is read
  ~FlushTiny() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// function<type of products>(...), with the tiles ready where it is bfloat16.
#if defined(R1KIT_BF16)
#define R1KIT_CALL(function, ...) \
  const FlushTiny flush;          \
  if (half) {                     \
    Tiles tiles;                  \
    function<bf16>(__VA_ARGS__);  \
  } else                          \
    function<float>(__VA_ARGS__)
#else
#define R1KIT_CALL(function, ...) \
  const FlushTiny flush;          \
  function<float>(__VA_ARGS__)
#endif

extern "C" {

// 1 where the process may use bfloat16 products (Linux grants the tiles on request).
int has_bfloat16() {
#if defined(R1KIT_BF16) && defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
#else
  return 0;
#endif
}
}
