// One decoding pass of a small decoder in one call: the same mathematics as PreparedDecoder with DecodeAttention.
//
// Why it exists: with a hidden width of 128, most of a pass in PyTorch is the starting of small operations and the
// batched products of attention, which have two rows each. Here every value is touched as few times as it can be.
//
// A pass runs in float, or with weights, cache and what enters a product in bfloat16 and every sum in float. A row's
// result depends on that row alone: products add over k in one order for every row, however many rows there are, so
// batching, slots and neighbours change no bit. Nothing is allocated, nothing is global.

#include "products.h"

#if defined(__AVX512F__)
constexpr int ROWS = 12;  // 24 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int ROWS = 6;  // 12 of 16
#else
constexpr int ROWS = 8;  // NEON: 16 of 32
#endif
constexpr int PANEL = 2 * W;  // columns of one packed panel of floats

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

extern "C" {

struct Layer {
  const void *qkv, *output, *gate_up, *down;  // packed, in the numbers of the pass
  const float *qkv_bias, *head_gains;         // may be null
};

struct Model {
  int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  float eps;
  const float *embedding;  // [vocab, hidden]
  const float *turns;      // [positions, 2, head_dim]: cosines, and sines with the sign of the partner
  const void *head;
  const Layer *layer;
};

int64_t panel_width() { return PANEL; }
int64_t vector_width() { return W; }
}

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

// c [n, columns] = (ADD ? c : 0) + a [n, depth] B; B packed in panels. In bfloat16, n is rounded up to whole blocks.
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

// V vectors of a key or a value at once; `scaled` is the query as `dot` wants it.
template <int V>
static inline void scaled(const float* q, float scale, vf* query, const float*) {
  for (int v = 0; v < V; v++) query[v] = load(q + v * W) * scale;
}
template <int V>
static inline vf dot(const vf* query, const float* key) {
  vf products = query[0] * load(key);
  for (int v = 1; v < V; v++) products += query[v] * load(key + v * W);
  return products;
}
template <int V>
static inline void unpack(const float* from, vf* to) {
  for (int v = 0; v < V; v++) to[v] = load(from + v * W);
}
template <int V>
static inline void pack(const vf* from, float* to) {
  for (int v = 0; v < V; v++) store(to + v * W, from[v]);
}

#ifdef R1KIT_BF16
template <bool ADD>
static void multiply(int64_t n, const bf16* a, int64_t lda, int64_t depth, const void* packed, int64_t columns,
                     float* c, int64_t ldc) {
  const int64_t deep = whole(depth);
  product<ADD>(whole(n), columns / BLOCK, deep, a, lda, BLOCK, static_cast<const bf16*>(packed), deep * BLOCK, c, ldc);
}

// Two vectors of float make one of bfloat16; `unpack` gives its even and its odd numbers apart, `pack` joins them.
template <int V>
static inline void scaled(const float* q, float scale, vf* query, const bf16*) {
  for (int v = 0; v < V; v += 2) {
    const vf low = load(q + v * W) * scale, high = load(q + v * W + W) * scale;
    query[v / 2] = reinterpret_cast<vf>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
  }
}
template <int V>
static inline vf dot(const vf* query, const bf16* key) {
  __m512 products = _mm512_setzero_ps();
  for (int v = 0; v < V; v += 2)
    products = _mm512_dpbf16_ps(products, reinterpret_cast<__m512bh>(query[v / 2]),
                                reinterpret_cast<__m512bh>(_mm512_loadu_si512(key + v * W)));
  return reinterpret_cast<vf>(products);
}
template <int V>
static inline void unpack(const bf16* from, vf* to) {
  for (int v = 0; v < V; v += 2) {
    const __m512i both = _mm512_loadu_si512(from + v * W);
    to[v] = reinterpret_cast<vf>(_mm512_slli_epi32(both, 16));
    to[v + 1] = reinterpret_cast<vf>(_mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000))));
  }
}
template <int V>
static inline void pack(const vf* from, bf16* to) {
  const auto half = [](vf x) {
    return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x))));
  };
  for (int v = 0; v < V; v += 2)
    _mm512_storeu_si512(to + v * W, _mm512_or_si512(half(from[v]), _mm512_slli_epi32(half(from[v + 1]), 16)));
}
#endif

// to = x / sqrt(mean(x^2) + eps), over `width` values in `length` places (the rest are zeros).
template <class E>
static void normalise(const float* x, int64_t width, int64_t length, float eps, E* to) {
  vf squares = vf{};
  for (int64_t i = 0; i < length; i += W) squares += load(x + i) * load(x + i);
  const vf inverse = splat(1.0f / std::sqrt(sum(squares) / float(width) + eps));
  for (int64_t i = 0; i < length; i += W) put(to + i, load(x + i) * inverse);
}

// RoPE on interleaved pairs, in place.
static void turn(float* x, int64_t width, const float* turns) {
  for (int64_t i = 0; i < width; i += W) {
    const vf v = load(x + i);
    store(x + i, v * load(turns + i) + partner(v) * load(turns + width + i));
  }
}

// Attention of R heads that share keys and values [length, V * W]; scores [R, length rounded up to W].
template <class E, int V, int R>
static void attend(const float* q, const E* keys, const E* values, int64_t length, float scale, float* scores, E* out) {
  const int64_t width = V * W, stride = (length + W - 1) / W * W;
  vf query[R][V];
  for (int h = 0; h < R; h++) scaled<V>(q + h * width, scale, query[h], keys);
  // A block of W positions at a time. Behind the last one the cache holds finite numbers, which are masked below.
  for (int64_t j = 0; j < length; j += W)
    for (int h = 0; h < R; h++) {
      vf products[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) products[i] = dot<V>(query[h], keys + (j + i) * width);
      store(scores + h * stride + j, sums(products));
    }
  float inverse[R];
  for (int h = 0; h < R; h++) {
    float* row = scores + h * stride;
    const float most = masked_highest(row, length, stride);
    vf total = vf{};
    for (int64_t j = 0; j < stride; j += W) {
      vf weight = exponential(out, load(row + j) - most);
      store(row + j, weight);
      for (int64_t i = length - j; i < W; i++) row[j + i] = 0;  // exp of the mask is small, not 0
      weight = load(row + j);
      total += weight;
    }
    inverse[h] = 1.0f / sum(total);
  }
  vf mixed[R][V];
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) mixed[h][v] = vf{};
  for (int64_t j = 0; j < length; j++) {
    vf value[V];
    unpack<V>(values + j * width, value);
    for (int h = 0; h < R; h++) {
      const vf weight = splat(scores[h * stride + j]);
      for (int v = 0; v < V; v++) mixed[h][v] += weight * value[v];
    }
  }
  for (int h = 0; h < R; h++) {
    for (int v = 0; v < V; v++) mixed[h][v] *= inverse[h];
    pack<V>(mixed[h], out + h * width);
  }
}

template <class E>
using Attend = void (*)(const float*, const E*, const E*, int64_t, float, float*, E*);

template <class E, int V>
static Attend<E> by_heads(int64_t together) {
  return together == 4 ? attend<E, V, 4> : together == 2 ? attend<E, V, 2> : attend<E, V, 1>;
}

template <class E>
static Attend<E> choose(int64_t vectors, int64_t together) {
  switch (vectors) {
    case 1: return sizeof(E) == 4 ? by_heads<E, 1>(together) : nullptr;
    case 2: return by_heads<E, 2>(together);
    case 4: return by_heads<E, 4>(together);
    case 8: return by_heads<E, 8>(together);
    default: return nullptr;
  }
}

// Where the rows of one pass lie in its scratch memory.
template <class E>
struct Rows {
  float *x, *wide, *scores;  // residual stream [n, D]; heads [n, all], later gate and up [n, mlp]; scores of one slot
  E *normed, *mixed, *act;   // [n, D], [n, inner], [n, I]
  int64_t size = 0;  // of all of them, in floats
  Rows(const Model* m, int64_t rows, int64_t places, float* at) {
    const int64_t n = whole(rows), D = whole(m->hidden), inner = m->heads * m->head_dim;
    const int64_t all = whole(inner + 2 * m->kv_heads * m->head_dim), mlp = whole(2 * m->intermediate);
    const auto take = [&](int64_t bytes) {
      float* piece = at + size;
      size += (bytes + 63) / 64 * 16;
      return piece;
    };
    x = take(4 * n * D);
    wide = take(4 * n * (all > mlp ? all : mlp));
    scores = take(4 * m->heads * (places + W));
    normed = reinterpret_cast<E*>(take(sizeof(E) * n * D));
    mixed = reinterpret_cast<E*>(take(sizeof(E) * n * inner));
    act = reinterpret_cast<E*>(take(sizeof(E) * n * m->intermediate));
  }
};

// Turns, normalises and caches the heads of one row of `wide`, and attends; `mixed` gets what the row's heads see.
template <class E>
static void attend_row(const Model* m, const Layer& w, float* row, int64_t position, E* keys, E* values, int64_t places,
                       Attend<E> attention, int64_t together, float* scores, E* mixed) {
  const int64_t K = m->head_dim, H = m->heads, G = m->kv_heads, shared = H / G;
  if (w.qkv_bias)
    for (int64_t j = 0; j < (H + 2 * G) * K; j++) row[j] += w.qkv_bias[j];
  for (int64_t h = 0; h < H + G; h++) {
    float* head = row + h * K;
    if (w.head_gains) {
      normalise(head, K, K, m->eps, head);
      for (int64_t j = 0; j < K; j++) head[j] *= w.head_gains[h * K + j];
    }
    turn(head, K, m->turns + position * 2 * K);
  }
  for (int64_t g = 0; g < G; g++) {
    E *key = keys + g * places * K, *value = values + g * places * K;
    for (int64_t j = 0; j < K; j += W) {
      put(key + position * K + j, load(row + (H + g) * K + j));
      put(value + position * K + j, load(row + (H + G + g) * K + j));
    }
    for (int64_t h = g * shared; h < (g + 1) * shared; h += together)
      attention(row + h * K, key, value, position + 1, 1.0f / std::sqrt(float(K)), scores, mixed + h * K);
  }
}

template <class E>
static int run(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, E* cache, int64_t slots,
               int64_t places, float* scratch, float* logits) {
  const int64_t D = whole(m->hidden), K = m->head_dim, H = m->heads, G = m->kv_heads, I = m->intermediate;
  const int64_t all = whole((H + 2 * G) * K), inner = H * K, mlp = whole(2 * I), V = whole(m->vocab);
  const int64_t shared = H / G, together = shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1;
  const int64_t per_slot = G * places * K, per_layer = slots * per_slot, unit = sizeof(E) == 4 ? W : BLOCK;
  const Attend<E> attention = choose<E>(K / W, together);
  if (!attention || K % unit || I % unit) return 1;
  const Rows<E> r(m, n, places, scratch);

  std::memset(r.x, 0, sizeof(float) * n * D);
  for (int64_t i = 0; i < n; i++)
    std::memcpy(r.x + i * D, m->embedding + ids[i] * m->hidden, sizeof(float) * m->hidden);
  const auto normalise_rows = [&] {
    for (int64_t i = 0; i < n; i++) normalise(r.x + i * D, m->hidden, D, m->eps, r.normed + i * D);
  };

  for (int64_t l = 0; l < m->layers; l++) {
    const Layer& w = m->layer[l];
    E *keys = cache + l * per_layer, *values = cache + (m->layers + l) * per_layer;
    normalise_rows();
    multiply<false>(n, r.normed, D, m->hidden, w.qkv, all, r.wide, all);
    for (int64_t i = 0; i < n; i++)
      attend_row(m, w, r.wide + i * all, positions[i], keys + i * per_slot, values + i * per_slot, places, attention,
                 together, r.scores, r.mixed + i * inner);
    multiply<true>(n, r.mixed, inner, inner, w.output, D, r.x, D);
    normalise_rows();
    multiply<false>(n, r.normed, D, m->hidden, w.gate_up, mlp, r.wide, mlp);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < I; j += W) {
        const vf gate = load(r.wide + i * mlp + j), up = load(r.wide + i * mlp + I + j);
        put(r.act + i * I + j, gate / (1.0f + exponential(r.act, -gate)) * up);
      }
    multiply<true>(n, r.act, I, I, w.down, D, r.x, D);
  }
  normalise_rows();
  multiply<false>(n, r.normed, D, m->hidden, m->head, V, logits, V);
  return 0;
}

extern "C" {

// Floats of scratch memory that a pass needs for n rows in a cache of `places` positions.
int64_t scratch_size(const Model* m, int64_t n, int64_t places) { return Rows<float>(m, n, places, nullptr).size; }

// Logits [whole(n), padded vocab] after token ids[i] at position positions[i] of slot i, whose key and value are added
// to the cache [2, layers, slots, kv_heads, places, head_dim]. Returns 0, or 1 where this shape is not supported.
int decode(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, float* cache, int64_t slots,
           int64_t places, float* scratch, float* logits) {
  return run(m, n, ids, positions, cache, slots, places, scratch, logits);
}

// The same with weights and cache in bfloat16.
int decode_bfloat16(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, uint16_t* cache, int64_t slots,
                int64_t places, float* scratch, float* logits) {
#ifdef R1KIT_BF16
  const Tiles tiles;
  return run(m, n, ids, positions, cache, slots, places, scratch, logits);
#else
  return 1;
#endif
}
// Inverse transform sampling from softmax(logits) of n rows: the first token whose cumulative probability passes
// uniforms[i], and its probability. Rows have length `stride`; places behind `vocab` are overwritten. What is not a
// number gives the last token and a probability that is no number either.
void draw(int64_t n, int64_t vocab, int64_t stride, float* logits, const double* uniforms, int64_t* tokens,
          double* probabilities) {
  for (int64_t i = 0; i < n; i++) {
    float* row = logits + i * stride;
    const float highest = masked_highest(row, vocab, stride);
    vf check = vf{};  // vexp bounds its argument, so what is not finite has to be seen before it
    for (int64_t j = 0; j < stride; j += W) {
      const vf x = load(row + j) - highest;
      check += x * 0.0f;
      store(row + j, vexp(x));
    }
    double total = 0;
    for (int64_t j = 0; j < vocab; j++) total += row[j];
    const double target = uniforms[i] * total;
    int64_t token = 0;
    for (double passed = row[0]; token < vocab - 1 && !(passed > target);) passed += row[++token];
    tokens[i] = token;
    probabilities[i] = row[token] / total + sum(check);
  }
}
}
