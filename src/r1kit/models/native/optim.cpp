// Steps of optimisers over flat float vectors: Muon on matrices, AdamW on the rest.
//
// Why it exists: a tiny model's matrices are so small that Newton-Schulz in PyTorch is mostly calls and passes between
// small products: a third of a pre-training step. Here a matrix goes through all of its iterations while it is in the
// core's cache, with its momentum on the way in and its weights on the way out.

#include "layout.h"

// A matrix of the flat vector, [rows, columns] from `start` on; `scale` of its update. Not `mine`: another rank makes
// its update, and only its momentum moves on here.
struct Piece {
  int64_t start, rows, columns;
  float scale;
  int32_t mine;
};

struct Step {
  float momentum, lr, decay;  // decay: what is left of a weight
};

// Quintic Newton-Schulz coefficients and iterations, as in training/optim.py.
constexpr float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
constexpr int ITERATIONS = 5;

// Room for one matrix, turned so that it is wide: [M, N] in whole blocks.
template <class E>
struct MuonRoom {
  int64_t M, N;
  float *flat, *sums;  // [M, N]: the direction, later the update; its other form, or products of a block of rows
  E *x, *gram, *mix, *panels;
  MuonRoom(Arena& arena, const Piece& p)
      : M(whole(p.rows < p.columns ? p.rows : p.columns)), N(whole(p.rows < p.columns ? p.columns : p.rows)) {
    flat = arena.take<float>(M * N);
    sums = arena.take<float>(M * N);
    x = arena.take<E>(M * N);
    panels = arena.take<E>(M * N);
    gram = arena.take<E>(M * M);
    mix = arena.take<E>(M * M);
  }
};

template <class E>
static void measure(const Piece* pieces, int64_t count, int64_t& most) {
  for (const Piece* p = pieces; p < pieces + count; p++) {
    Arena arena{nullptr};
    MuonRoom<E>(arena, *p);
    const int64_t bytes = reinterpret_cast<int64_t>(arena.at);
    most = bytes > most ? bytes : most;
  }
}

// Moves n momenta on; each(place, direction) with whole vectors, then with the single numbers that are left.
template <class Each>
static void momentum_row(const float* grad, float* momentum, int64_t n, float left, const Each& each) {
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const vf g = load(grad + i), m = load(momentum + i) + (g - load(momentum + i)) * left;
    store(momentum + i, m);
    each(i, m - (m - g) * left);
  }
  for (; i < n; i++) {
    const float g = grad[i], m = momentum[i] += (g - momentum[i]) * left;
    each(i, m - (m - g) * left);
  }
}

static inline void put_at(float* to, int64_t i, vf x) { store(to + i, x); }
static inline void put_at(float* to, int64_t i, float x) { to[i] = x; }

// a [rows, depth] times B, 32 rows of sums at a time: each(first row).
template <class E, class Each>
static void by_rows(int64_t rows, int64_t columns, int64_t depth, const E* a, const E* b, float* sums,
                    const Each& each) {
  for (int64_t m = 0; m < rows; m += BLOCK) {
    product<false>(BLOCK, columns / BLOCK, depth, a + m * depth, depth, BLOCK, b, depth * BLOCK, sums, columns);
    each(m);
  }
}

// x [M, N] to its nearest semi-orthogonal matrix, approximately.
template <class E>
static void orthogonalise(const MuonRoom<E>& r) {
  const int64_t M = r.M, N = r.N;
  for (int step = 0; step < ITERATIONS; step++) {
    pack_columns(r.x, N, M, N, M, r.panels, N * BLOCK);
    by_rows(M, M, N, r.x, r.panels, r.sums, [&](int64_t m) {
      for (int64_t i = 0; i < BLOCK * M; i += W) put(r.gram + m * M + i, load(r.sums + i));
    });
    pack_rows(r.gram, M, M, M, M, r.panels, M * BLOCK);
    by_rows(M, M, M, r.gram, r.panels, r.sums, [&](int64_t m) {
      for (int64_t i = 0; i < BLOCK * M; i += W)
        put(r.mix + m * M + i, NS_B * load(r.gram, m * M + i) + NS_C * load(r.sums + i));
    });
    pack_rows(r.x, N, M, M, N, r.panels, M * BLOCK);
    by_rows(M, N, M, r.mix, r.panels, r.sums, [&](int64_t m) {
      for (int64_t i = 0; i < BLOCK * N; i += W)
        put(r.x + m * N + i, NS_A * load(r.x, m * N + i) + load(r.sums + i));
    });
  }
}

// Momentum of one matrix, and its update before it is scaled: [rows, columns], rows `ld` apart, each number one of E.
template <class E>
static const float* update_of(const MuonRoom<E>& r, const Piece& p, const float* grad, float* momentum, float left,
                              int64_t& ld) {
  const bool tall = p.rows > p.columns;
  const int64_t M = r.M, N = r.N, wide = whole(p.columns);
  float* direction = tall ? r.sums : r.flat;
  std::memset(direction, 0, sizeof(float) * M * N);
  for (int64_t i = 0; i < p.rows; i++)
    momentum_row(grad + i * p.columns, momentum + i * p.columns, p.columns, left,
                 [&](int64_t j, auto x) { put_at(direction + i * wide, j, x); });
  if (tall) turn_rows(direction, wide, N, N, wide, r.flat, N);
  double squares = 0;  // of a row in float, of rows in double: large matrices lose nothing
  for (int64_t i = 0; i < M; i++) {
    vf row = vf{};
    for (int64_t j = 0; j < N; j += W) row += load(r.flat + i * N + j) * load(r.flat + i * N + j);
    squares += sum(row);
  }
  const float factor = 1.0f / (float(std::sqrt(squares)) + 1e-7f);
  for (int64_t i = 0; i < M * N; i += W) put(r.x + i, load(r.flat + i) * factor);
  orthogonalise(r);
  for (int64_t i = 0; i < M * N; i += W) store(r.flat + i, load(r.x, i));
  ld = tall ? M : N;
  if (tall) turn_rows(r.flat, N, M, M, N, r.sums, M);
  return tall ? r.sums : r.flat;
}

// Between float and E where a float holds a number of E.
static inline void narrow(float x, float* to) { *to = x; }
static inline float widen(float x) { return x; }
#if defined(R1KIT_BF16)
static inline void narrow(float x, bf16* to) { std::memcpy(to, reinterpret_cast<char*>(&x) + 2, 2); }
static inline float widen(bf16 x) {
  const uint32_t bits = uint32_t(x) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}
#endif

template <class E>
static void take_step(const E* update, int64_t n, const Step& s, float scale, float* weights) {
  for (int64_t i = 0; i < n; i++) weights[i] = weights[i] * s.decay - s.lr * scale * widen(update[i]);
}

template <class E>
static void run_muon(const Piece* pieces, int64_t count, const Step& s, const float* grad, float* momentum,
                     void* update, float* weights, char* room) {
  for (const Piece* p = pieces; p < pieces + count; p++) {
    const float left = 1.0f - s.momentum;
    if (!p->mine) {
      momentum_row(grad + p->start, momentum + p->start, p->rows * p->columns, left, [](int64_t, auto) {});
      continue;
    }
    Arena arena{room};
    int64_t ld;
    const float* found = update_of(MuonRoom<E>(arena, *p), *p, grad + p->start, momentum + p->start, left, ld);
    for (int64_t i = 0; i < p->rows; i++, found += ld) {
      const int64_t to = p->start + i * p->columns;
      if (update)
        for (int64_t j = 0; j < p->columns; j++) narrow(found[j], static_cast<E*>(update) + to + j);
      else
        take_step(found, p->columns, s, p->scale, weights + to);
    }
  }
}

template <class E>
static void run_steps(const Piece* pieces, int64_t count, const Step& s, const void* update, float* weights) {
  for (const Piece* p = pieces; p < pieces + count; p++)
    take_step(static_cast<const E*>(update) + p->start, p->rows * p->columns, s, p->scale, weights + p->start);
}

static inline vf root(vf x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#else
  for (int i = 0; i < W; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// One AdamW step of a vector of numbers.
struct Adam {
  float beta1, beta2, lr, decay, root_correction2, eps;  // lr is divided by the first correction
  void operator()(vf g, vf& first, vf& second, vf& weight) const {
    first += (g - first) * (1.0f - beta1);
    second = second * beta2 + g * g * (1.0f - beta2);
    weight = weight * decay - first / (root(second) / root_correction2 + eps) * lr;
  }
};

extern "C" {

int64_t muon_room(int half, const Piece* pieces, int64_t count) {
  int64_t most = 0;
  R1KIT_CALL(measure, pieces, count, most);
  return most;
}

// Moves the momentum of all matrices on, and either takes the step, or (update is not null) writes the updates of those
// that are `mine`, unscaled and in the type of products, where the weights have theirs.
void muon(int half, const Piece* pieces, int64_t count, const Step* s, const float* grad, float* momentum, void* update,
          float* weights, char* room) {
  R1KIT_CALL(run_muon, pieces, count, *s, grad, momentum, update, weights, room);
}

// The step from the updates of all matrices.
void muon_steps(int half, const Piece* pieces, int64_t count, const Step* s, const void* update, float* weights) {
  R1KIT_CALL(run_steps, pieces, count, *s, update, weights);
}

// One AdamW step on `count` stretches [start, length] of weights and gradients; the moments hold them one by one.
void adam(const Adam* a, const int64_t (*stretches)[2], int64_t count, const float* grads, float* first, float* second,
          float* weights) {
  for (int64_t s = 0; s < count; s++) {
    const int64_t n = stretches[s][1];
    const float* g = grads + stretches[s][0];
    float* w = weights + stretches[s][0];
    int64_t i = 0;
    for (; i + W <= n; i += W) {
      vf m = load(first + i), v = load(second + i), x = load(w + i);
      (*a)(load(g + i), m, v, x);
      store(first + i, m);
      store(second + i, v);
      store(w + i, x);
    }
    if (const size_t rest = sizeof(float) * (n - i)) {  // a vector too: no number's bits depend on where a stretch ends
      vf d{}, m{}, v{}, x{};
      std::memcpy(&d, g + i, rest);
      std::memcpy(&m, first + i, rest);
      std::memcpy(&v, second + i, rest);
      std::memcpy(&x, w + i, rest);
      (*a)(d, m, v, x);
      std::memcpy(first + i, &m, rest);
      std::memcpy(second + i, &v, rest);
      std::memcpy(w + i, &x, rest);
    }
    first += n;
    second += n;
  }
}
}
