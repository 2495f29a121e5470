// One decoding pass of a small decoder in one call: the same mathematics as PreparedDecoder with DecodeAttention.
//
// Why it exists: with a hidden width of 128, most of a pass in PyTorch is the starting of small operations and the
// batched products of attention, which have two rows each. Here every value is touched as few times as it can be.
//
// A row's result depends on that row alone: products add over k in one order for every row, however many rows there
// are, so batching, slots and neighbours change no bit. Nothing is allocated, nothing is global.

#include "vectors.h"

#if defined(__AVX512F__)
constexpr int ROWS = 12;  // 24 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int ROWS = 6;  // 12 of 16
#else
constexpr int ROWS = 8;  // NEON: 16 of 32
#endif
constexpr int PANEL = 2 * W;  // columns of one packed panel

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
  const float *qkv, *qkv_bias, *head_gains, *output, *gate_up, *down;  // bias and gains may be null
};

struct Model {
  int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  float eps;
  const float *embedding;  // [vocab, hidden]
  const float *turns;      // [positions, 2, head_dim]: cosines, and sines with the sign of the partner
  const float *head;
  const Layer *layer;
};

int64_t panel_width() { return PANEL; }
int64_t vector_width() { return W; }
}

static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

// c[r] = (add ? add[r] : 0) + a[r] B for R rows and one panel of B [k, PANEL].
template <int R>
static void tile(const float* a, int64_t lda, int64_t depth, const float* b, const float* add, float* c, int64_t ldc) {
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
      const int64_t at = r * ldc + j * W;
      store(c + at, add ? load(add + at) + acc[r][j] : acc[r][j]);
    }
}

template <int R>
static void remainder(int rows, const float* a, int64_t lda, int64_t k, const float* b, const float* add, float* c,
                      int64_t ldc) {
  if (rows == R) return tile<R>(a, lda, k, b, add, c, ldc);
  if constexpr (R > 1) remainder<R - 1>(rows, a, lda, k, b, add, c, ldc);
}

// c [n, columns] = (add) + a [n, depth] B; B packed in panels, c and add with row length ldc.
static void product(int64_t n, const float* a, int64_t lda, int64_t depth, const float* b, int64_t columns,
                    const float* add, float* c, int64_t ldc) {
  for (int64_t column = 0; column < columns; column += PANEL, b += depth * PANEL)
    for (int64_t row = 0; row < n; row += ROWS) {
      const float* plus = add ? add + row * ldc + column : nullptr;
      float* to = c + row * ldc + column;
      if (n - row >= ROWS)
        tile<ROWS>(a + row * lda, lda, depth, b, plus, to, ldc);
      else
        remainder<ROWS - 1>(int(n - row), a + row * lda, lda, depth, b, plus, to, ldc);
    }
}

// to = x / sqrt(mean(x^2) + eps), over `width` values in `length` places (the rest are zeros).
static void normalise(const float* x, int64_t width, int64_t length, float eps, float* to) {
  vf squares = vf{};
  for (int64_t i = 0; i < length; i += W) squares += load(x + i) * load(x + i);
  const vf inverse = splat(1.0f / std::sqrt(sum(squares) / float(width) + eps));
  for (int64_t i = 0; i < length; i += W) store(to + i, load(x + i) * inverse);
}

// RoPE on interleaved pairs, in place.
static void turn(float* x, int64_t width, const float* turns) {
  for (int64_t i = 0; i < width; i += W) {
    const vf v = load(x + i);
    store(x + i, v * load(turns + i) + partner(v) * load(turns + width + i));
  }
}

// Attention of R heads that share keys and values [length, V * W]; scores [R, length rounded up to W].
template <int V, int R>
static void attend(const float* q, const float* keys, const float* values, int64_t length, float scale, float* scores,
                   float* out) {
  const int64_t width = V * W, stride = (length + W - 1) / W * W;
  vf query[R][V];
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) query[h][v] = load(q + h * width + v * W) * scale;
  // A block of W positions at a time. Behind the last one the cache holds finite numbers, which are masked below.
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
  for (int h = 0; h < R; h++) {
    float* row = scores + h * stride;
    const float highest = masked_highest(row, length, stride);
    vf total = vf{};
    for (int64_t j = 0; j < stride; j += W) {
      vf weight = vexp(load(row + j) - highest);
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
    for (int v = 0; v < V; v++) value[v] = load(values + j * width + v * W);
    for (int h = 0; h < R; h++) {
      const vf weight = splat(scores[h * stride + j]);
      for (int v = 0; v < V; v++) mixed[h][v] += weight * value[v];
    }
  }
  for (int h = 0; h < R; h++)
    for (int v = 0; v < V; v++) store(out + h * width + v * W, mixed[h][v] * inverse[h]);
}

using Attend = void (*)(const float*, const float*, const float*, int64_t, float, float*, float*);

template <int V>
static Attend by_heads(int64_t together) {
  return together == 4 ? attend<V, 4> : together == 2 ? attend<V, 2> : attend<V, 1>;
}

static Attend choose(int64_t vectors, int64_t together) {
  switch (vectors) {
    case 1: return by_heads<1>(together);
    case 2: return by_heads<2>(together);
    case 4: return by_heads<4>(together);
    case 8: return by_heads<8>(together);
    default: return nullptr;
  }
}

extern "C" {

// Floats of scratch memory that `decode` needs for n rows in a cache of `places` positions.
int64_t scratch_size(const Model* m, int64_t n, int64_t places) {
  const int64_t width = padded(m->hidden), all = padded((m->heads + 2 * m->kv_heads) * m->head_dim);
  const int64_t inner = m->heads * m->head_dim, mlp = padded(2 * m->intermediate);
  return n * (2 * width + (all + inner > mlp ? all + inner : mlp)) + m->heads * (places + W) + n * m->intermediate;
}

// Logits [n, padded vocab] after token ids[i] at position positions[i] of slot i, whose key and value are added to
// the cache [2, layers, slots, kv_heads, places, head_dim]. Returns 0, or 1 where this shape is not supported.
int decode(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, float* cache, int64_t slots,
           int64_t places, float* scratch, float* logits) {
  const int64_t D = padded(m->hidden), K = m->head_dim, H = m->heads, G = m->kv_heads, I = m->intermediate;
  const int64_t all = padded((H + 2 * G) * K), inner = H * K, mlp = padded(2 * I);
  const int64_t shared = H / G, together = shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1;
  const Attend attention = choose(K / W, together);
  if (!attention || K % W || I % W) return 1;
  float* x = scratch;         // residual stream [n, D]
  float* normed = x + n * D;  // [n, D]
  float* qkv = normed + n * D;  // [n, all], and behind it what attention gives [n, inner]; later gate and up [n, mlp]
  float* mixed = qkv + n * all;
  float* act = qkv + n * (all + inner > mlp ? all + inner : mlp);  // [n, I]
  float* scores = act + n * I;
  const int64_t per_head = places * K, per_slot = G * per_head, per_layer = slots * per_slot;
  const float scale = 1.0f / std::sqrt(float(K));

  std::memset(x, 0, sizeof(float) * n * D);
  for (int64_t i = 0; i < n; i++) std::memcpy(x + i * D, m->embedding + ids[i] * m->hidden, sizeof(float) * m->hidden);

  for (int64_t l = 0; l < m->layers; l++) {
    const Layer& w = m->layer[l];
    float* keys = cache + l * per_layer;
    float* values = cache + (m->layers + l) * per_layer;
    for (int64_t i = 0; i < n; i++) normalise(x + i * D, m->hidden, D, m->eps, normed + i * D);
    product(n, normed, D, m->hidden, w.qkv, all, nullptr, qkv, all);
    for (int64_t i = 0; i < n; i++) {
      float* row = qkv + i * all;
      if (w.qkv_bias)
        for (int64_t j = 0; j < (H + 2 * G) * K; j++) row[j] += w.qkv_bias[j];
      for (int64_t h = 0; h < H + G; h++) {
        float* head = row + h * K;
        if (w.head_gains) {
          normalise(head, K, K, m->eps, head);
          for (int64_t j = 0; j < K; j++) head[j] *= w.head_gains[h * K + j];
        }
        turn(head, K, m->turns + positions[i] * 2 * K);
      }
      for (int64_t g = 0; g < G; g++) {
        const int64_t at = i * per_slot + g * per_head;
        std::memcpy(keys + at + positions[i] * K, row + (H + g) * K, sizeof(float) * K);
        std::memcpy(values + at + positions[i] * K, row + (H + G + g) * K, sizeof(float) * K);
        for (int64_t h = g * shared; h < (g + 1) * shared; h += together)
          attention(row + h * K, keys + at, values + at, positions[i] + 1, scale, scores, mixed + i * inner + h * K);
      }
    }
    product(n, mixed, inner, inner, w.output, D, x, x, D);
    for (int64_t i = 0; i < n; i++) normalise(x + i * D, m->hidden, D, m->eps, normed + i * D);
    product(n, normed, D, m->hidden, w.gate_up, mlp, nullptr, qkv, mlp);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < I; j += W) {
        const vf gate = load(qkv + i * mlp + j), up = load(qkv + i * mlp + I + j);
        store(act + i * I + j, gate / (1.0f + vexp(-gate)) * up);
      }
    product(n, act, I, I, w.down, D, x, x, D);
  }
  for (int64_t i = 0; i < n; i++) normalise(x + i * D, m->hidden, D, m->eps, normed + i * D);
  product(n, normed, D, m->hidden, m->head, padded(m->vocab), nullptr, logits, padded(m->vocab));
  return 0;
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
