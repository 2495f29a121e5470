// Vectors of floats for the compiled passes: GCC's portable ones, so the files compile for AVX-512, AVX2 and NEON;
// -march=native picks.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef float vu __attribute__((vector_size(4 * W), aligned(4), may_alias));

static inline vf load(const float* p) { return *reinterpret_cast<const vu*>(p); }
static inline void store(float* p, vf x) { *reinterpret_cast<vu*>(p) = x; }
static inline vf splat(float x) { return x - vf{}; }

static inline float sum(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(x));
#else
  float total = 0;
  for (int i = 0; i < W; i++) total += x[i];
  return total;
#endif
}

static inline float highest(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(x));
#else
  float most = x[0];
  for (int i = 1; i < W; i++) most = x[i] > most ? x[i] : most;
  return most;
#endif
}

static inline vi lanes() {  // 0, 1, 2 ...
  vi lane;
  for (int i = 0; i < W; i++) lane[i] = i;
  return lane;
}

// exp to 2 units in the last place: x = n ln 2 + r, a polynomial in r, n into the exponent.
static inline vf vexp(vf x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  vf shifted = x * 1.44269504088896341f + magic;
  vf n = shifted - magic;
  vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vi exponent = (reinterpret_cast<vi>(shifted) << 23) + (127 << 23);
  return p * reinterpret_cast<vf>(exponent);
}

// The highest of the first `length` scores of a row; the places behind them, up to whole vectors, are masked.
static inline float masked_highest(float* row, int64_t length, int64_t stride) {
  for (int64_t j = length; j < stride; j++) row[j] = -1e30f;
  vf most = load(row);
  for (int64_t j = W; j < stride; j += W) most = load(row + j) > most ? load(row + j) : most;
  return highest(most);
}

static inline vf partner(vf x) {
  vi swap;
  for (int i = 0; i < W; i++) swap[i] = i ^ 1;
  return __builtin_shuffle(x, swap);
}
