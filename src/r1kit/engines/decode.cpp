// Decoding with a small decoder: its passes, and whole steps of sampling, in one call.
//
// Why it exists: with a hidden width of 128, most of a pass in PyTorch is the starting of small operations, and most of
// a step is Python. Here every value is touched as few times as it can be, and a call makes many steps.
//
// A pass runs in float, or with weights, cache and what enters a product in bfloat16 and every sum in float. A row's
// result depends on that row alone, so batching, slots and neighbours change no bit, and a token gives the same whether
// it was in the prompt or sampled. Nothing is allocated, nothing is global.

#include "decode_attention.h"
#include "decode_products.h"
#include "decode_sampling.h"

#include <chrono>

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

// What the scheduler and the sampler know of every running response, a row for each.
struct Table {
  int64_t rows, width, stops_width;
  int64_t *lengths, *counts;      // positions in the cache; tokens in the table
  const int64_t *slots, *limits;  // where in the cache; tokens at most
  const int64_t *stops;           // [rows, stops_width] token ids, or -1
  int64_t *tokens;                // [rows, width]
  double *logprobs;               // [rows, width]
  const uint64_t *keys;
  const float *temperatures;
  const bool *greedy;
};

// What a call did. `failed`: a row whose scores are not numbers, or -1.
struct Done {
  int64_t steps, row_steps, tokens, failed;
  double decoding, attention, sampling;  // seconds
};

int64_t panel_width() { return PANEL; }
int64_t vector_width() { return W; }
}

constexpr int64_t TOGETHER = BLOCK;  // rows that go through a layer together

// Where the rows of one pass lie in its scratch memory.
template <class E>
struct Rows {
  float *x, *wide;                     // residual stream [n, D]; products of a group [32, widest]
  E *normed, *query, *mixed, *act;     // of a group: [32, D], [32, inner], [32, inner], [32, I]
  AttentionRoom<E> attention;
  Seen* seen;  // [n]
  int64_t size = 0;  // of all of them, in bytes
  Rows(const Model* m, int64_t rows, int64_t places, char* at) {
    const int64_t n = whole(rows), D = whole(m->hidden), inner = m->heads * m->head_dim;
    const int64_t all = whole(inner + 2 * m->kv_heads * m->head_dim), mlp = whole(2 * m->intermediate);
    const auto take = [&](int64_t bytes) {
      char* piece = at + size;
      size += (bytes + 63) / 64 * 64;
      return piece;
    };
    const auto floats = [&](int64_t count) { return reinterpret_cast<float*>(take(sizeof(float) * count)); };
    const auto numbers = [&](int64_t count) { return reinterpret_cast<E*>(take(sizeof(E) * count)); };
    const int64_t widest = all > mlp ? all : mlp, scores = GROUP * m->heads * whole(places);
    x = floats(n * D);
    wide = floats(BLOCK * widest);
    normed = numbers(BLOCK * D);
    query = numbers(BLOCK * inner);
    mixed = numbers(BLOCK * inner);
    act = numbers(BLOCK * m->intermediate);
    attention = {floats(scores), floats(GROUP * inner), numbers(scores)};
    seen = reinterpret_cast<Seen*>(take(sizeof(Seen) * n));
  }
};

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

// Turns and normalises the heads of one row of `wide`; keys and values go into the cache, scaled queries to `query`.
template <class E>
static void keep_row(const Model* m, const Layer& w, float* row, Seen seen, const Cache<E>& cache, int64_t layer,
                     E* query) {
  const int64_t K = m->head_dim, H = m->heads, G = m->kv_heads, position = seen.length - 1;
  const float scale = 1.0f / std::sqrt(float(K));
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
  for (int64_t j = 0; j < H * K; j += W) put(query + j, load(row + j) * scale);
  for (int64_t g = 0; g < G; g++)
    keep(cache.keys(seen.slot, layer, g), cache.values(seen.slot, layer, g), K, position, row + (H + g) * K,
         row + (H + G + g) * K);
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One pass over n tokens, whose keys and values are added to the cache: the residual stream in r.x.
template <class E>
static void forward(const Model* m, int64_t n, const int64_t* ids, const Cache<E>& cache, const Rows<E>& r,
                    Done& done) {
  const int64_t D = whole(m->hidden), K = m->head_dim, H = m->heads, G = m->kv_heads, I = m->intermediate;
  const int64_t all = whole((H + 2 * G) * K), inner = H * K;
  std::memset(r.x, 0, sizeof(float) * n * D);
  for (int64_t i = 0; i < n; i++)
    std::memcpy(r.x + i * D, m->embedding + ids[i] * m->hidden, sizeof(float) * m->hidden);
  for (int64_t l = 0; l < m->layers; l++)
    for (int64_t first = 0; first < n; first += TOGETHER) {
      const Layer& w = m->layer[l];
      const int64_t rows = n - first < TOGETHER ? n - first : TOGETHER;
      float* x = r.x + first * D;
      const auto normalise_rows = [&] {
        for (int64_t i = 0; i < rows; i++) normalise(x + i * D, m->hidden, D, m->eps, r.normed + i * D);
      };
      normalise_rows();
      multiply<false>(rows, r.normed, D, m->hidden, w.qkv, all, r.wide, all);
      const double began = now();
      for (int64_t i = 0; i < rows; i++)
        keep_row(m, w, r.wide + i * all, r.seen[first + i], cache, l, r.query + i * inner);
      attend_rows(cache, l, rows, r.seen + first, H, r.query, r.attention, r.mixed);
      done.attention += now() - began;
      multiply<true>(rows, r.mixed, inner, inner, w.output, D, x, D);
      normalise_rows();
      gated(rows, r.normed, D, m->hidden, w.gate_up, I, r.wide, r.act);
      multiply<true>(rows, r.act, I, I, w.down, D, x, D);
    }
}

// Logits [whole(n), padded vocab] of n rows of the stream: `rows`, or the first n where null.
template <class E>
static void score_rows(const Model* m, int64_t n, const int64_t* rows, const Rows<E>& r, float* logits) {
  const int64_t D = whole(m->hidden), V = whole(m->vocab);
  for (int64_t first = 0; first < n; first += TOGETHER) {
    const int64_t count = n - first < TOGETHER ? n - first : TOGETHER;
    for (int64_t i = 0; i < count; i++)
      normalise(r.x + (rows ? rows[first + i] : first + i) * D, m->hidden, D, m->eps, r.normed + i * D);
    multiply<false>(count, r.normed, D, m->hidden, m->head, V, logits + first * V, V);
  }
}

template <class E>
static Cache<E> cache_of(const Model* m, void* data, int64_t blocks) {
  return {static_cast<E*>(data), m->layers, m->kv_heads, blocks, m->head_dim};
}

// Tokens ids[i] at positions[i] of slots[i]; those of one slot in order. Logits of `wanted` of the rows.
template <class E>
static void run(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, const int64_t* slots,
                void* data, int64_t blocks, int64_t count, const int64_t* wanted, char* scratch, float* logits) {
  const Rows<E> r(m, n, blocks * BLOCK, scratch);
  for (int64_t i = 0; i < n; i++) r.seen[i] = {slots[i], positions[i] + 1};
  Done done = {};
  forward(m, n, ids, cache_of<E>(m, data, blocks), r, done);
  score_rows(m, count, wanted, r, logits);
}

// Notes a token for each of n rows, drawn from logits [n], and strikes those that end from `rows`; returns how many are
// left. Nothing is noted where scores are not numbers.
static int64_t draw_rows(const Model* m, const Table& t, int64_t n, int64_t* rows, float* logits, Done& done) {
  const int64_t V = whole(m->vocab);
  for (int64_t i = 0; i < n; i++) {
    const int64_t row = rows[i], at = row * t.width + t.counts[row];
    const Drawn drawn = draw_one(logits + i * V, m->vocab, t.temperatures[row], t.greedy[row],
                                 uniform(t.keys[row], t.lengths[row]));
    t.tokens[at] = drawn.token;
    t.logprobs[at] = drawn.logprob;
    if (!(drawn.logprob - drawn.logprob == 0) && done.failed < 0) done.failed = row;
  }
  if (done.failed >= 0) return n;
  int64_t left = 0;
  for (int64_t i = 0; i < n; i++) {
    const int64_t row = rows[i], token = t.tokens[row * t.width + t.counts[row]++];
    bool ended = t.counts[row] >= t.limits[row];
    for (int64_t s = 0; s < t.stops_width; s++) ended |= t.stops[row * t.stops_width + s] == token;
    if (!ended) rows[left++] = row;
  }
  done.tokens += n;
  return left;
}

template <class E>
static void advance(const Model* m, const Table& t, int64_t steps, int64_t enough, void* data, int64_t blocks,
                    char* scratch, int64_t* rows, float* logits, Done& done) {
  const Rows<E> r(m, t.rows, blocks * BLOCK, scratch);
  const Cache<E> cache = cache_of<E>(m, data, blocks);
  const int64_t V = whole(m->vocab);
  int64_t* ids = rows + t.rows;
  int64_t n = t.rows;
  for (int64_t i = 0; i < n; i++) rows[i] = i;
  for (int64_t step = 0; step < steps && n && t.rows - n < enough; step++) {
    const double began = now();
    n = draw_rows(m, t, n, rows, logits, done);
    const double drawn = now();
    done.sampling += drawn - began;
    if (done.failed >= 0) return;
    for (int64_t i = 0; i < n; i++) {
      const int64_t row = rows[i];
      ids[i] = t.tokens[row * t.width + t.counts[row] - 1];
      r.seen[i] = {t.slots[row], ++t.lengths[row]};
    }
    if (n) forward(m, n, ids, cache, r, done);
    score_rows(m, n, nullptr, r, logits);
    done.decoding += now() - drawn;
    done.steps += n > 0;
    done.row_steps += n;
  }
  for (int64_t i = n; i-- > 0;)  // rows[i] >= i, so from behind
    if (rows[i] != i) std::memcpy(logits + rows[i] * V, logits + i * V, sizeof(float) * V);
}

#ifdef R1KIT_BF16
#define IN_NUMBERS(half, call)  \
  if (half) {                   \
    const Tiles tiles;          \
    typedef bf16 E;             \
    call;                       \
  } else {                      \
    typedef float E;            \
    call;                       \
  }
#else
#define IN_NUMBERS(half, call) \
  {                            \
    typedef float E;           \
    call;                      \
  }
#endif

extern "C" {

// Bytes of scratch memory for passes of up to n rows with a cache of so many blocks.
int64_t scratch_size(const Model* m, int64_t n, int64_t blocks) {
  return Rows<float>(m, n, blocks * BLOCK, nullptr).size;
}

// `half`: weights and cache are bfloat16. Every address of `scratch` and `logits` starts a cache line.
void decode(const Model* m, int half, int64_t n, const int64_t* ids, const int64_t* positions, const int64_t* slots,
            void* cache, int64_t blocks, int64_t count, const int64_t* wanted, char* scratch, float* logits) {
  IN_NUMBERS(half, run<E>(m, n, ids, positions, slots, cache, blocks, count, wanted, scratch, logits))
}

// Up to `steps` times: a token for every row of the table from `logits`, then the model on those tokens of the rows
// that have not ended. Stops early when `enough` have. `rows` has room for two numbers a row.
void decode_steps(const Model* m, int half, const Table* table, int64_t steps, int64_t enough, void* cache,
                  int64_t blocks, char* scratch, int64_t* rows, float* logits, Done* done) {
  IN_NUMBERS(half, advance<E>(m, *table, steps, enough, cache, blocks, scratch, rows, logits, *done))
}

// One draw for each of n rows of logits, `stride` apart.
void draw(int64_t n, int64_t vocab, int64_t stride, float* logits, const float* temperatures, const bool* greedy,
          const double* uniforms, int64_t* tokens, double* logprobs) {
  for (int64_t i = 0; i < n; i++) {
    const Drawn drawn = draw_one(logits + i * stride, vocab, temperatures[i], greedy[i], uniforms[i]);
    tokens[i] = drawn.token;
    logprobs[i] = drawn.logprob;
  }
}
}
