// The cache of keys and values, and attention of single tokens over it.
//
// A cache is [slots, layers, kv_heads, 2 (keys, values), blocks of 32 positions, 32 * head_dim]. In float a block is
// [32 positions, head_dim]. In bfloat16 it is what matrix tiles read: keys as [2 halves of 16 positions, head_dim / 32,
// 16 pairs of dims, 16 positions, 2], values as [head_dim / 16, 16 pairs of positions, 16 dims, 2]. Behind the last
// position of a slot lies any finite number: it is read, and weighs nothing.
#pragma once

#include "products.h"

template <class E>
struct Cache {
  E* data;
  int64_t layers, heads, blocks, width;
  E* keys(int64_t slot, int64_t layer, int64_t head) const {
    return data + ((slot * layers + layer) * heads + head) * 2 * blocks * BLOCK * width;
  }
  E* values(int64_t slot, int64_t layer, int64_t head) const {
    return keys(slot, layer, head) + blocks * BLOCK * width;
  }
};

// One row of a pass: its token is the last that it sees.
struct Seen {
  int64_t slot, length;
};

// Rows whose scores are made before their weights: what one row waits for is done for the next meanwhile.
constexpr int64_t GROUP = 4;

// Room for attention of a group of rows: for each row and head, scores of all positions.
template <class E>
struct AttentionRoom {
  float *scores, *sums;
  E* weights;
};

// The halves of t folded together: lanes whose bit HALF is set go on with t[i + HALF], the others with t[i].
template <int HALF, int... LANE>
static inline void fold(vf* t, std::integer_sequence<int, LANE...>) {
  constexpr vi keep = {(LANE & HALF ? LANE + W : LANE)...};
  constexpr vi cross = {(LANE & HALF ? (LANE ^ HALF) + W : LANE ^ HALF)...};
  for (int i = 0; i < HALF; i++)
    t[i] = __builtin_shuffle(t[i], t[i + HALF], keep) + __builtin_shuffle(t[i], t[i + HALF], cross);
  if constexpr (HALF > 1) fold<HALF / 2>(t, std::integer_sequence<int, LANE...>{});
}

// Lane i of the result is the sum over the lanes of t[i]; t is used up.
static inline vf sums(vf* t) {
  fold<W / 2>(t, std::make_integer_sequence<int, W>{});
  return t[0];
}

// Scores of `length` positions to weights, zeros up to `stride` (whole vectors); returns their sum.
template <class E>
static float soften(float* row, int64_t length, int64_t stride, E* weights) {
  const float most = masked_highest(row, length, stride);
  vf total = vf{};
  int64_t j = 0;
  for (; j + W <= length; j += W) {
    const vf weight = exponential(weights, load(row + j) - most);
    total += weight;
    put(weights + j, weight);
  }
  if (j < length) {  // exp of the mask is small, not 0
    const vf weight = lanes() < int32_t(length - j) ? exponential(weights, load(row + j) - most) : vf{};
    total += weight;
    put(weights + j, weight);
    j += W;
  }
  for (; j < stride; j += W) put(weights + j, vf{});
  return sum(total);
}

static inline void keep(float* keys, float* values, int64_t width, int64_t position, const float* key,
                        const float* value) {
  std::memcpy(keys + position * width, key, sizeof(float) * width);
  std::memcpy(values + position * width, value, sizeof(float) * width);
}

// Attention of R heads that share keys and values [length, V * W].
template <int V, int R>
static void attend(const float* q, const float* keys, const float* values, int64_t length, float* scores, float* out) {
  const int64_t width = V * W, stride = (length + W - 1) / W * W;
  vf query[R][V];
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) query[h][v] = load(q + h * width + v * W);
  for (int64_t j = 0; j < length; j += W)
    for (int h = 0; h < R; h++) {
      vf products[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) {
        const float* key = keys + (j + i) * width;
        products[i] = query[h][0] * load(key);
        for (int v = 1; v < V; v++) products[i] += query[h][v] * load(key + v * W);
      }
      store(scores + h * stride + j, sums(products));
    }
  float inverse[R];
  for (int h = 0; h < R; h++) inverse[h] = 1.0f / soften(scores + h * stride, length, stride, scores + h * stride);
  vf mixed[R][V];
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) mixed[h][v] = vf{};
  for (int64_t j = 0; j < length; j++)
    for (int h = 0; h < R; h++) {
      const vf weight = splat(scores[h * stride + j]);
      for (int v = 0; v < V; v++) mixed[h][v] += weight * load(values + j * width + v * W);
    }
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) store(out + h * width + v * W, mixed[h][v] * inverse[h]);
}

typedef void (*Attend)(const float*, const float*, const float*, int64_t, float*, float*);

template <int V>
static Attend by_heads(int64_t together) {
  return together == 4 ? attend<V, 4> : together == 2 ? attend<V, 2> : attend<V, 1>;
}

static Attend choose(int64_t width, int64_t together) {
  switch (width / W) {
    case 1: return by_heads<1>(together);
    case 2: return by_heads<2>(together);
    case 4: return by_heads<4>(together);
    default: return by_heads<8>(together);
  }
}

// mixed [n, heads * width] of n rows of q, scaled, over one layer of the cache.
static void attend_rows(const Cache<float>& cache, int64_t layer, int64_t n, const Seen* seen, int64_t heads,
                        const float* q, const AttentionRoom<float>& room, float* mixed) {
  const int64_t shared = heads / cache.heads, together = shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1;
  const Attend attention = choose(cache.width, together);
  for (int64_t i = 0; i < n; i++)
    for (int64_t h = 0; h < heads; h += together) {
      const int64_t at = (i * heads + h) * cache.width, g = h / shared;
      attention(q + at, cache.keys(seen[i].slot, layer, g), cache.values(seen[i].slot, layer, g), seen[i].length,
                room.scores, mixed + at);
    }
}

#ifdef R1KIT_BF16
static inline void keep(bf16* keys, bf16* values, int64_t width, int64_t position, const float* key,
                        const float* value) {
  const int64_t block = position / BLOCK, place = position % BLOCK;
  uint32_t* column = words(keys + block * BLOCK * width + place / 16 * 16 * width) + place % 16;
  const __m512i down = _mm512_mullo_epi32(reinterpret_cast<__m512i>(lanes()), _mm512_set1_epi32(16));
  for (int64_t d = 0; d < width; d += 32) {
    const __m512 low = reinterpret_cast<__m512>(load(key + d)), high = reinterpret_cast<__m512>(load(key + d + 16));
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    _mm512_i32scatter_epi32(column + d * 8, down, reinterpret_cast<__m512i>(both), 4);
  }
  bf16* row = values + block * BLOCK * width + place / 2 * 32;
  for (int64_t d = 0; d < width; d += 16, row += 512) {
    const __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(load(value + d)));
    __m512i pair = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(half));
    const __m512i before = _mm512_and_si512(_mm512_loadu_si512(row), _mm512_set1_epi32(0xffff));
    if (place % 2) pair = _mm512_or_si512(_mm512_slli_epi32(pair, 16), before);
    _mm512_storeu_si512(row, pair);
  }
}

// Tiles 0 to 5 of `rows` rows (queries, scores, weights, sums), 6 and 7 of 16 (keys, values); 16 for other products.
static void shape_tiles(int64_t rows) {
  alignas(64) uint8_t shape[64] = {1};
  for (int i = 0; i < 8; i++) {
    shape[16 + 2 * i] = 64;
    shape[48 + i] = i < 6 ? uint8_t(rows) : 16;
  }
  asm volatile("" ::: "memory");
  _tile_loadconfig(shape);
}

// Asks for the first lines of each block: a block of heads of 64 is a page, and the processor fetches on by itself
// within a page only, once it has seen it begun.
static inline void begin(const bf16* blocks, int64_t length, int64_t width) {
  for (int64_t j = 0; j < length; j += BLOCK, blocks += BLOCK * width)
    for (int64_t line = 0; line < 4; line++) __builtin_prefetch(blocks + line * BLOCK);
}

// Scores of 32 positions at a time, for queries [heads, 32 * D]; `stride` floats from head to head.
template <int D>
static void score(const bf16* q, const bf16* keys, int64_t length, float* scores, int64_t stride) {
  constexpr int64_t line = 64 * D;
  asm volatile("" ::: "memory");
  _tile_loadd(2, q, line);
  if constexpr (D > 1) _tile_loadd(3, q + 32, line);
  if constexpr (D > 2) _tile_loadd(4, q + 64, line);
  if constexpr (D > 3) _tile_loadd(5, q + 96, line);
  const bf16* upper = keys;
  for (int64_t j = 0; j < length; j += BLOCK, upper += BLOCK * 32 * D) {
    const bf16* lower = upper + 512 * D;
    _tile_zero(0);
    _tile_loadd(6, upper, 64);
    _tile_dpbf16ps(0, 2, 6);
    if constexpr (D > 1) {
      _tile_loadd(6, upper + 512, 64);
      _tile_dpbf16ps(0, 3, 6);
    }
    if constexpr (D > 2) {
      _tile_loadd(6, upper + 1024, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
    if constexpr (D > 3) {
      _tile_loadd(6, upper + 1536, 64);
      _tile_dpbf16ps(0, 5, 6);
    }
    _tile_stored(0, scores + j, 4 * stride);
    if (j + 16 >= length) break;
    _tile_zero(1);
    _tile_loadd(7, lower, 64);
    _tile_dpbf16ps(1, 2, 7);
    if constexpr (D > 1) {
      _tile_loadd(7, lower + 512, 64);
      _tile_dpbf16ps(1, 3, 7);
    }
    if constexpr (D > 2) {
      _tile_loadd(7, lower + 1024, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (D > 3) {
      _tile_loadd(7, lower + 1536, 64);
      _tile_dpbf16ps(1, 5, 7);
    }
    _tile_stored(1, scores + j + 16, 4 * stride);
  }
  asm volatile("" ::: "memory");
}

// sums [heads, 32 * D] = weights [heads, length] times values; weights behind `length` are zeros.
template <int D>
static void mix(const bf16* weights, int64_t stride, const bf16* values, int64_t length, float* sums) {
  constexpr int TILES = D == 1 ? 2 : 4;
  asm volatile("" ::: "memory");
  for (int d = 0; d < 2 * D; d += TILES) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (TILES > 2) _tile_zero(2);
    if constexpr (TILES > 2) _tile_zero(3);
    const bf16* from = values + d * 512;
    for (int64_t j = 0; j < length; j += BLOCK, from += BLOCK * 32 * D) {
      _tile_loadd(4, weights + j, 2 * stride);
      _tile_loadd(6, from, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, from + 512, 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (TILES > 2) {
        _tile_loadd(6, from + 1024, 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(7, from + 1536, 64);
        _tile_dpbf16ps(3, 4, 7);
      }
    }
    float* to = sums + d * 16;
    _tile_stored(0, to, 128 * D);
    _tile_stored(1, to + 16, 128 * D);
    if constexpr (TILES > 2) _tile_stored(2, to + 32, 128 * D);
    if constexpr (TILES > 2) _tile_stored(3, to + 48, 128 * D);
  }
  asm volatile("" ::: "memory");
}

template <int D>
static void attend_group(const Cache<bf16>& cache, int64_t layer, int64_t g, int64_t n, bool more, const Seen* seen,
                         int64_t heads, int64_t h, int64_t together, const bf16* q, const AttentionRoom<bf16>& room,
                         bf16* mixed) {
  constexpr int64_t width = 32 * D;
  const int64_t all = heads * width, places = cache.blocks * BLOCK, each = together * places;
  float inverse[GROUP * 16];
  for (int64_t i = 0; i < n; i++) {
    const Seen next = seen[i + 1 < n ? i + 1 : 0];
    begin(i + 1 < n ? cache.keys(next.slot, layer, g) : cache.values(next.slot, layer, g), next.length, width);
    score<D>(q + i * all + h * width, cache.keys(seen[i].slot, layer, g), seen[i].length, room.scores + i * each,
             places);
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t r = 0; r < together; r++) {
      const int64_t at = i * each + r * places;
      inverse[i * 16 + r] = 1.0f / soften(room.scores + at, seen[i].length, whole(seen[i].length), room.weights + at);
    }
  for (int64_t i = 0; i < n; i++) {
    if (i + 1 < n)
      begin(cache.values(seen[i + 1].slot, layer, g), seen[i + 1].length, width);
    else if (more)
      begin(cache.keys(seen[n].slot, layer, g), seen[n].length, width);
    mix<D>(room.weights + i * each, places, cache.values(seen[i].slot, layer, g), seen[i].length,
           room.sums + i * together * width);
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t r = 0; r < together; r++)
      for (int64_t d = 0; d < width; d += W)
        put(mixed + i * all + (h + r) * width + d,
            load(room.sums + (i * together + r) * width + d) * inverse[i * 16 + r]);
}

template <int D>
static void attend_rows(const Cache<bf16>& cache, int64_t layer, int64_t n, const Seen* seen, int64_t heads,
                        const bf16* q, const AttentionRoom<bf16>& room, bf16* mixed) {
  const int64_t shared = heads / cache.heads;
  int64_t together = shared < 16 ? shared : 16;
  while (shared % together) together--;
  shape_tiles(together);
  for (int64_t first = 0; first < n; first += GROUP)
    for (int64_t h = 0; h < heads; h += together) {
      const int64_t at = first * heads * cache.width, count = n - first < GROUP ? n - first : GROUP;
      attend_group<D>(cache, layer, h / shared, count, first + count < n, seen + first, heads, h, together, q + at,
                      room, mixed + at);
    }
  shape_tiles(16);
}

static void attend_rows(const Cache<bf16>& cache, int64_t layer, int64_t n, const Seen* seen, int64_t heads,
                        const bf16* q, const AttentionRoom<bf16>& room, bf16* mixed) {
  switch (cache.width / 32) {
    case 1: return attend_rows<1>(cache, layer, n, seen, heads, q, room, mixed);
    case 2: return attend_rows<2>(cache, layer, n, seen, heads, q, room, mixed);
    default: return attend_rows<4>(cache, layer, n, seen, heads, q, room, mixed);
  }
}
#endif
