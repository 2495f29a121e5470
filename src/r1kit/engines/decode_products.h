// Matrix products of the decoding pass: `n` rows against weights packed once, in float and in bfloat16.
//
// Products add over the depth in one order for every row, however many rows there are.
#pragma once

#include "products.h"

#if defined(__AVX512F__)
constexpr int ROWS = 12;  // 24 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int ROWS = 6;  // 12 of 16
#else
constexpr int ROWS = 8;  // NEON: 16 of 32
#endif
constexpr int PANEL = 2 * W;  // columns of one packed panel of floats

// c[r] = (ADD ? c[r] : 0) + a[r] B for R rows and one panel of B [k, PANEL].
template <bool ADD, int R>
static void tile(const float* a, int64_t lda, int64_t depth, const float* b, float* c, int64_t ldc) {
  vf acc[R][2];
  for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = vf{};
  for (int64_t k = 0; k < depth; k++, b += PANEL) {
    const vf b0 = load(b), b1 = load(b + W);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf x = splat(a[r * lda + k]);
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
  }
  for (int r = 0; r < R; r++)
    for (int j = 0; j < 2; j++) {
      float* to = c + r * ldc + j * W;
      store(to, ADD ? load(to) + acc[r][j] : acc[r][j]);
    }
}

template <bool ADD, int R>
static void remainder(int rows, const float* a, int64_t lda, int64_t k, const float* b, float* c, int64_t ldc) {
  if (rows == R) return tile<ADD, R>(a, lda, k, b, c, ldc);
  if constexpr (R > 1) remainder<ADD, R - 1>(rows, a, lda, k, b, c, ldc);
}

// c [n, columns] = (ADD ? c : 0) + a [n, depth] B; B packed in panels. In bfloat16, n is rounded up to tiles of 16.
template <bool ADD>
static void multiply(int64_t n, const float* a, int64_t lda, int64_t depth, const void* packed, int64_t columns,
                     float* c, int64_t ldc) {
  const float* b = static_cast<const float*>(packed);
  for (int64_t column = 0; column < columns; column += PANEL, b += depth * PANEL)
    for (int64_t row = 0; row < n; row += ROWS)
      if (n - row >= ROWS)
        tile<ADD, ROWS>(a + row * lda, lda, depth, b, c + row * ldc + column, ldc);
      else
        remainder<ADD, ROWS - 1>(int(n - row), a + row * lda, lda, depth, b, c + row * ldc + column, ldc);
}

template <class E>
static inline void activate(const float* gate, const float* up, E* to) {
  const vf x = load(gate);
  put(to, x * reciprocal(to, 1.0f + exponential(to, -x)) * load(up));
}

// act [n, width] = SiLU(a Gate) * (a Up), both packed one behind the other; `wide` holds both products.
static void gated(int64_t n, const float* a, int64_t lda, int64_t depth, const void* packed, int64_t width, float* wide,
                  float* act) {
  const int64_t both = whole(2 * width);
  multiply<false>(n, a, lda, depth, packed, both, wide, both);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < width; j += W)
      activate(wide + i * both + j, wide + i * both + width + j, act + i * width + j);
}

#ifdef R1KIT_BF16
// One panel of 32 columns, for 16 rows or for 32; Tiles must be configured.
template <bool ADD, bool BOTH>
static inline void panel_product(const bf16* a, int64_t lda, int64_t depth, const bf16* panel, float* c, int64_t ldc) {
  const bf16* lower = a + 16 * lda;
  float* under = c + 16 * ldc;
  asm volatile("" ::: "memory");  // the tile loads do not tell the compiler that they read memory
  if (ADD) {
    _tile_loadd(0, c, 4 * ldc);
    _tile_loadd(1, c + 16, 4 * ldc);
    if (BOTH) _tile_loadd(2, under, 4 * ldc);
    if (BOTH) _tile_loadd(3, under + 16, 4 * ldc);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if (BOTH) _tile_zero(2);
    if (BOTH) _tile_zero(3);
  }
  for (int64_t k = 0; k < depth; k += BLOCK, panel += BLOCK * BLOCK) {
    _tile_loadd(4, a + k, 2 * lda);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + 512, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (BOTH) {
      _tile_loadd(5, lower + k, 2 * lda);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, 4 * ldc);
  _tile_stored(1, c + 16, 4 * ldc);
  if (BOTH) _tile_stored(2, under, 4 * ldc);
  if (BOTH) _tile_stored(3, under + 16, 4 * ldc);
  asm volatile("" ::: "memory");
}

template <bool ADD>
static inline void panel_product(int64_t rows, const bf16* a, int64_t lda, int64_t depth, const bf16* panel, float* c,
                                 int64_t ldc) {
  if (rows > 16)
    panel_product<ADD, true>(a, lda, depth, panel, c, ldc);
  else
    panel_product<ADD, false>(a, lda, depth, panel, c, ldc);
}

template <bool ADD>
static void multiply(int64_t n, const bf16* a, int64_t lda, int64_t depth, const void* packed, int64_t columns,
                     float* c, int64_t ldc) {
  const int64_t deep = whole(depth);
  const bf16* panel = static_cast<const bf16*>(packed);
  for (int64_t column = 0; column < columns; column += BLOCK, panel += deep * BLOCK)
    for (int64_t row = 0; row < n; row += BLOCK)
      panel_product<ADD>(n - row, a + row * lda, lda, deep, panel, c + row * ldc + column, ldc);
}

// The same from panel to panel: 32 columns of gate and of up are used up before the next are made.
static void gated(int64_t n, const bf16* a, int64_t lda, int64_t depth, const void* packed, int64_t width, float* wide,
                  bf16* act) {
  const int64_t deep = whole(depth);
  const bf16 *gate = static_cast<const bf16*>(packed), *up = gate + width * deep;
  float* other = wide + BLOCK * BLOCK;
  for (int64_t column = 0; column < width; column += BLOCK, gate += deep * BLOCK, up += deep * BLOCK)
    for (int64_t row = 0; row < n; row += BLOCK) {
      panel_product<false>(n - row, a + row * lda, lda, deep, gate, wide, BLOCK);
      panel_product<false>(n - row, a + row * lda, lda, deep, up, other, BLOCK);
      for (int64_t i = 0; i < BLOCK && row + i < n; i++)
        for (int64_t j = 0; j < BLOCK; j += W)
          activate(wide + i * BLOCK + j, other + i * BLOCK + j, act + (row + i) * width + column + j);
    }
}
#endif
