// Forward and backward of a small decoder over packed sequences: the mathematics of models/decoder.py in one call each.
//
// Why it exists: with a hidden width of 128, most of a training step in PyTorch is passes over activations between
// small products. Here a block of rows stays in the core's cache from one product to the next, and what lies between
// them is done on the way. With bfloat16 products (AMX) the residual stream, norms, softmax and all sums stay float.
//
// Every width is padded to whole blocks of 32 with zeros, so any shape runs. Gains of norms are folded into the weights
// behind them. One layer at a time runs over chunks of whole sequences. Sums run in a fixed order: a call gives the
// same bits every time. Nothing is allocated, nothing is global.

#include "attention.h"
#include "weights.h"

// to = x / sqrt(mean(x^2) + eps) over `width` values (the rest are zeros); returns the factor.
template <class E>
static float normalise(const float* x, int64_t width, int64_t padded, float eps, E* to) {
  vf squares = vf{};
  for (int64_t i = 0; i < padded; i += W) squares += load(x + i) * load(x + i);
  const float factor = 1.0f / std::sqrt(sum(squares) / float(width) + eps);
  for (int64_t i = 0; i < padded; i += W) put(to + i, load(x + i) * factor);
  return factor;
}

// to (+)= the gradient of `normalise`: factor * (g - n * mean(g * n)).
template <bool ADD, class E>
static void normalise_backward(const float* g, const E* n, float factor, int64_t width, int64_t padded, float* to) {
  vf products = vf{};
  for (int64_t i = 0; i < padded; i += W) products += load(g + i) * load(n, i);
  const float mean = sum(products) / float(width);
  for (int64_t i = 0; i < padded; i += W) {
    const vf grad = (load(g + i) - load(n, i) * mean) * factor;
    store(to + i, ADD ? load(to + i) + grad : grad);
  }
}

// x [n, D] turned, as the side of a weight gradient: for 32 rows of x after another, [D, 32].
template <class E>
static void turn(const Sizes& s, int64_t n, const E* x, E* to) {
  turn_rows(x, s.D, n, whole(n), s.D, to, BLOCK, s.D * BLOCK);
}

// sums [D, 32] = (add ? sums : 0) + x^T y over n rows, for x turned and 32 columns of y.
template <class E>
static void outer_panel(const Sizes& s, const Room<E>& r, int64_t n, const E* turned, const E* y, int64_t ldy,
                        float* sums, bool add) {
  pack_rows(y, ldy, n, whole(n), BLOCK, r.panel, 0);
  if (add)
    product<true>(s.D, 1, whole(n), turned, BLOCK, s.D * BLOCK, r.panel, 0, sums, BLOCK);
  else
    product<false>(s.D, 1, whole(n), turned, BLOCK, s.D * BLOCK, r.panel, 0, sums, BLOCK);
}

// sums = (add ? sums : 0) + x^T y over n rows, for 32 columns after another [D, 32].
template <class E>
static void outer(const Sizes& s, const Room<E>& r, int64_t n, const E* x, const E* y, int64_t columns, float* sums,
                  bool add) {
  turn(s, n, x, r.turned);
  for (int64_t c = 0; c < columns; c += BLOCK) outer_panel(s, r, n, r.turned, y + c, columns, sums + c * s.D, add);
}

struct Chunk {
  int64_t sequence, count, start, rows;  // sequences, and their tokens

  // The next chunk: whole sequences until CHUNK tokens are full.
  static Chunk after(const Batch& b, int64_t sequence, int64_t start) {
    Chunk c{sequence, 0, start, 0};
    while (sequence + c.count < b.sequences && c.rows < CHUNK) c.rows += b.lengths[sequence + c.count++];
    return c;
  }
};

template <class E>
struct Pass {
  const Model& m;
  const Batch& b;
  Sizes s;
  int64_t T, longest;
  Arena arena;
  Room<E> r;

  static int64_t total(const Batch& b) {
    int64_t all = 0;
    for (int64_t i = 0; i < b.sequences; i++) all += b.lengths[i];
    return all;
  }
  static int64_t most(const Batch& b) {
    int64_t length = 0;
    for (int64_t i = 0; i < b.sequences; i++) length = b.lengths[i] > length ? b.lengths[i] : length;
    return length;
  }

  Pass(const Model& model, const Batch& batch, char* room)
      : m(model), b(batch), s(model), T(total(batch)), longest(whole(most(batch))), arena{room},
        r(arena, s, T, whole(CHUNK + longest) + BLOCK, longest) {}

  template <class Each>
  void chunks(const Each& each) {
    for (Chunk c = Chunk::after(b, 0, 0); c.count; c = Chunk::after(b, c.sequence + c.count, c.start + c.rows)) each(c);
  }
  template <class Each>
  void blocks(const Chunk& c, const Each& each) {  // each(first token, tokens)
    for (int64_t i = 0; i < c.rows; i += ROWS) each(c.start + i, c.rows - i < ROWS ? c.rows - i : ROWS);
  }
  template <class Each>
  void sequences(const Chunk& c, const Each& each) {
    int64_t start = c.start;
    for (int64_t i = c.sequence; i < c.sequence + c.count; start += b.lengths[i++]) each(start, b.lengths[i]);
  }
  const float* turns(int64_t t) const { return m.turns + r.position[t] * 2 * s.K; }

  void place() {  // positions of all tokens in their sequences
    int64_t t = 0;
    for (int64_t i = 0; i < b.sequences; i++)
      for (int64_t p = 0; p < b.lengths[i]; p++) r.position[t++] = p;
  }

  void embed() {
    std::memset(r.stream, 0, sizeof(float) * T * s.D);
    for (int64_t t = 0; t < T; t++)
      std::memcpy(r.stream + t * s.D, m.embedding + b.ids[t] * m.hidden, sizeof(float) * m.hidden);
  }

  // Bias, norm and rotation of the heads of one token, from `row` into what is saved.
  void finish_heads(const Packed<E>& w, const Saved<E>& k, int64_t t, float* row, bool head_norms) {
    const float* turn = turns(t);
    for (int64_t j = 0; j < s.Q; j += W) store(row + j, load(row + j) + load(w.bias + j));
    for (int64_t h = 0; h < s.rotated; h++) {
      float* head = row + h * s.K;
      if (head_norms) {
        const int64_t at = t * s.rotated + h;
        const float factor = k.head_rstd[at] = normalise(head, m.head_dim, s.K, m.eps, k.heads + at * s.K);
        const float* gain = w.gains + (h < s.H ? 0 : s.K);
        for (int64_t j = 0; j < s.K; j += W) store(head + j, load(head + j) * factor * load(gain + j));
      }
      for (int64_t j = 0; j < s.K; j += W) {
        const vf x = load(head + j);
        put(k.qkv + t * s.Q + h * s.K + j, x * load(turn + j) + partner(x) * load(turn + s.K + j));
      }
    }
    for (int64_t j = s.rotated * s.K; j < s.Q; j += W) put(k.qkv + t * s.Q + j, load(row + j));
  }

  void forward_layer(const Packed<E>& w, const Saved<E>& k, bool head_norms) {
    chunks([&](const Chunk& c) {
      blocks(c, [&](int64_t t, int64_t n) {
        for (int64_t i = t; i < t + n; i++)
          k.rstd[i] = normalise(r.stream + i * s.D, m.hidden, s.D, m.eps, k.normed + i * s.D);
        product<false>(whole(n), s.Q / BLOCK, s.D, k.normed + t * s.D, s.D, BLOCK, w.qkv, s.D * BLOCK, r.block,
                       s.Q);
        for (int64_t i = 0; i < n; i++) finish_heads(w, k, t + i, r.block + i * s.Q, head_norms);
      });
      sequences(c, [&](int64_t t, int64_t length) {
        attend(s, r.attention, k.qkv + t * s.Q, length, k.mixed + t * s.A, k.softmax + t * s.H);
      });
      blocks(c, [&](int64_t t, int64_t n) { mlp(w, k, c, t, n); });
    });
  }

  void mlp(const Packed<E>& w, const Saved<E>& k, const Chunk& c, int64_t t, int64_t n) {
    product<false>(whole(n), s.D / BLOCK, s.A, k.mixed + t * s.A, s.A, BLOCK, w.output, s.A * BLOCK, r.block, s.D);
    for (int64_t i = 0; i < n; i++) {
      float* x = r.stream + (t + i) * s.D;
      for (int64_t j = 0; j < s.D; j += W) store(x + j, load(x + j) + load(r.block + i * s.D + j));
      k.mlp_rstd[t + i] = normalise(x, m.hidden, s.D, m.eps, k.mlp_normed + (t + i) * s.D);
    }
    for (int64_t p = 0; p < s.I; p += BLOCK) {
      product<false>(whole(n), 2, s.D, k.mlp_normed + t * s.D, s.D, BLOCK, w.gate_up + 2 * p * s.D, s.D * BLOCK,
                     r.block, 2 * BLOCK);
      E* kept = gate_up_at(k, c, t, p);
      for (int64_t i = 0; i < n; i++, kept += 2 * BLOCK) {
        for (int64_t j = 0; j < BLOCK; j += W) {
          const vf gate = load(r.block + i * 2 * BLOCK + j), up = load(r.block + i * 2 * BLOCK + BLOCK + j);
          put_pair(kept + 2 * j, gate, up);
          put(r.act + ROWS * p + i * BLOCK + j, gate * reciprocal(kept, 1.0f + exponential(kept, -gate)) * up);
        }
      }
    }
    product<false>(whole(n), s.D / BLOCK, s.I, r.act, BLOCK, ROWS * BLOCK, w.down, s.I * BLOCK, r.block, s.D);
    add_block(t, n);
  }

  // What is kept of gate and up in 32 columns from p on, from token t on: panels of a chunk, one after another.
  E* gate_up_at(const Saved<E>& k, const Chunk& c, int64_t t, int64_t p) {
    return k.gate_up + 2 * (c.start * s.I + c.rows * p) + (t - c.start) * 2 * BLOCK;
  }

  void add_block(int64_t t, int64_t n) {
    float* x = r.stream + t * s.D;
    for (int64_t j = 0; j < n * s.D; j += W) store(x + j, load(x + j) + load(r.block + j));
  }

  // The stream as the side of a product, at row `row` of the chunk.
  E* side(int64_t t, int64_t n, int64_t row) {
    E* to = r.back + row * s.D;
    for (int64_t j = 0; j < n * s.D; j += W) put(to + j, load(r.stream + t * s.D + j));
    return to;
  }

  void mlp_backward(const Packed<E>& w, const Saved<E>& k, const Chunk& c) {
    const int64_t t0 = c.start;
    turn(s, c.rows, side(t0, c.rows, 0), r.turned);
    turn(s, c.rows, k.mlp_normed + t0 * s.D, r.turned_too);
    for (int64_t p = 0; p < s.I; p += BLOCK) {
      blocks(c, [&](int64_t t, int64_t n) { swiglu_backward(w, k, c, t, n, p); });
      outer_panel(s, r, c.rows, r.turned, r.act, BLOCK, r.down_sum + p * s.D, t0 > 0);
      for (int64_t j = 2 * p; j < 2 * p + 2 * BLOCK; j += BLOCK)
        outer_panel(s, r, c.rows, r.turned_too, r.gate_up + j * r.rows, BLOCK, r.gate_up_sum + j * s.D, t0 > 0);
    }
    blocks(c, [&](int64_t t, int64_t n) {
      product<false>(whole(n), s.D / BLOCK, 2 * s.I, r.gate_up + (t - t0) * BLOCK, BLOCK, r.rows * BLOCK,
                     w.gate_up_back, 2 * s.I * BLOCK, r.block, s.D);
      norm_backward(t, n, k.mlp_normed, k.mlp_rstd);
    });
  }

  // 32 columns of the MLP from p on: what went into `down` (made again), and the gradients of gate and up.
  void swiglu_backward(const Packed<E>& w, const Saved<E>& k, const Chunk& c, int64_t t, int64_t n, int64_t p) {
    const int64_t row = t - c.start;
    product<false>(whole(n), 1, s.D, r.back + row * s.D, s.D, BLOCK, w.down_back + p * s.D, 0, r.block, BLOCK);
    const E* kept = gate_up_at(k, c, t, p);
    for (int64_t i = 0; i < n; i++, kept += 2 * BLOCK) {
      E *gate_grad = r.gate_up + 2 * p * r.rows + (row + i) * BLOCK, *up_grad = gate_grad + r.rows * BLOCK;
      for (int64_t j = 0; j < BLOCK; j += W) {
        __builtin_prefetch(kept + 2 * j + 2 * BLOCK * 32);
        const vf g = load(r.block + i * BLOCK + j);
        vf gate, up;
        load_pair(kept + 2 * j, gate, up);
        const vf sigmoid = reciprocal(kept, 1.0f + exponential(kept, -gate)), silu = gate * sigmoid;
        put(r.act + (row + i) * BLOCK + j, silu * up);
        put(gate_grad + j, g * up * (sigmoid * (1.0f + gate - silu)));
        put(up_grad + j, g * silu);
      }
    }
  }

  void norm_backward(int64_t t, int64_t n, const E* normed, const float* rstd) {
    for (int64_t i = 0; i < n; i++)
      normalise_backward<true>(r.block + i * s.D, normed + (t + i) * s.D, rstd[t + i], m.hidden, s.D,
                               r.stream + (t + i) * s.D);
  }

  // The gradient of one head of one token, back through rotation and norm, at row `row` of the chunk.
  void head_gradient(const Packed<E>& w, const Saved<E>& k, int64_t t, int64_t row, int64_t h, float* grad,
                     bool head_norms) {
    if (h < s.rotated) {
      const float* turn = turns(t);
      for (int64_t j = 0; j < s.K; j += W) {
        const vf x = load(grad + j);
        store(grad + j, x * load(turn + j) - partner(x) * load(turn + s.K + j));
      }
      if (head_norms) {
        const int64_t at = t * s.rotated + h, which = h < s.H ? 0 : s.K;
        for (int64_t j = 0; j < s.K; j += W) {
          const vf x = load(grad + j);
          float* total = r.gain_sum + which + j;
          store(total, load(total) + x * load(k.heads + at * s.K, j));
          store(grad + j, x * load(w.gains + which + j));
        }
        normalise_backward<false>(grad, k.heads + at * s.K, k.head_rstd[at], m.head_dim, s.K, grad);
      }
    }
    for (int64_t j = 0; j < s.K; j += W) {
      float* total = r.bias_sum + h * s.K + j;
      store(total, load(total) + load(grad + j));
      put(r.wide + row * s.Q + h * s.K + j, load(grad + j));
    }
  }

  void backward_layer(const Packed<E>& w, const Saved<E>& k, bool head_norms) {
    std::memset(r.bias_sum, 0, sizeof(float) * s.Q);
    std::memset(r.gain_sum, 0, sizeof(float) * 2 * s.K);
    chunks([&](const Chunk& c) { mlp_backward(w, k, c); });
    chunks([&](const Chunk& c) {
      const int64_t t0 = c.start;
      blocks(c, [&](int64_t t, int64_t n) {
        const E* grad = side(t, n, t - t0);
        product<false>(whole(n), s.A / BLOCK, s.D, grad, s.D, BLOCK, w.output_back, s.D * BLOCK, r.block, s.A);
        for (int64_t j = 0; j < n * s.A; j += W) put(r.mixed + (t - t0) * s.A + j, load(r.block + j));
      });
      outer(s, r, c.rows, r.back, k.mixed + t0 * s.A, s.A, r.output_sum, t0 > 0);
      sequences(c, [&](int64_t t, int64_t length) {
        attend_backward(s, r.attention, k.qkv + t * s.Q, length, k.mixed + t * s.A, k.softmax + t * s.H,
                        r.mixed + (t - t0) * s.A, [&](int64_t i, int64_t h, float* grad) {
                          head_gradient(w, k, t + i, t - t0 + i, h, grad, head_norms);
                        });
      });
      outer(s, r, c.rows, k.normed + t0 * s.D, r.wide, s.Q, r.qkv_sum, t0 > 0);
      blocks(c, [&](int64_t t, int64_t n) {
        product<false>(whole(n), s.D / BLOCK, s.Q, r.wide + (t - t0) * s.Q, s.Q, BLOCK, w.qkv_back, s.Q * BLOCK,
                       r.block, s.D);
        norm_backward(t, n, k.normed, k.rstd);
      });
    });
  }
};

template <class E>
static void measure(const Model& m, const Batch& b, int64_t* bytes) {
  const Sizes s(m);
  Pass<E> pass(m, b, nullptr);
  Arena packed{nullptr}, saved{nullptr};
  SavedLast(saved, s, pass.T);
  for (int64_t l = 0; l < m.layers; l++) {
    Packed<E> w(packed, s);
    Saved<E> k(saved, s, pass.T + BLOCK, m.layer[l].q_norm);
  }
  bytes[0] = reinterpret_cast<int64_t>(packed.at);
  bytes[1] = reinterpret_cast<int64_t>(saved.at);
  bytes[2] = reinterpret_cast<int64_t>(pass.arena.at);
}

template <class E>
static void pack_all(const Model& m, char* packed, char* room) {
  const Sizes s(m);
  const int64_t none = 0;
  Pass<E> pass(m, Batch{0, &none, &none}, room);
  Arena arena{packed};
  // The sums of a backward pass are not in use now: their room holds one whole weight.
  for (int64_t l = 0; l < m.layers; l++)
    pack_layer(m, m.layer[l], Packed<E>(arena, s), pass.r.line, reinterpret_cast<E*>(pass.r.sums));
}

template <class E>
static void run_forward(const Model& m, const Batch& b, char* packed, char* saved, char* room, float* hidden) {
  Pass<E> pass(m, b, room);
  const Sizes& s = pass.s;
  Arena weights{packed}, keep{saved};
  const SavedLast last(keep, s, pass.T);
  pass.place();
  pass.embed();
  for (int64_t l = 0; l < m.layers; l++) {
    const bool head_norms = m.layer[l].q_norm;
    const Packed<E> w(weights, s);
    const Saved<E> k(keep, s, pass.T + BLOCK, head_norms);
    pass.forward_layer(w, k, head_norms);
  }
  for (int64_t t = 0; t < pass.T; t++) {
    float* normed = last.normed + t * s.D;
    last.rstd[t] = normalise(pass.r.stream + t * s.D, m.hidden, s.D, m.eps, normed);
    for (int64_t i = 0; i < m.hidden; i++) hidden[t * m.hidden + i] = normed[i] * m.final_norm[i];
  }
}

template <class E>
static void run_backward(const Model& m, const Batch& b, char* packed, char* saved, char* room, const float* grad) {
  Pass<E> pass(m, b, room);
  if (!pass.T) return;
  const Sizes& s = pass.s;
  Arena keep{saved};
  const SavedLast last(keep, s, pass.T);
  pass.place();
  std::memset(pass.r.line, 0, sizeof(float) * s.D);
  for (int64_t t = 0; t < pass.T; t++) {
    const float *normed = last.normed + t * s.D, *g = grad + t * m.hidden;
    for (int64_t i = 0; i < m.hidden; i++) {
      m.final_norm_grad[i] += g[i] * normed[i];
      pass.r.line[i] = g[i] * m.final_norm[i];
    }
    normalise_backward<false>(pass.r.line, normed, last.rstd[t], m.hidden, s.D, pass.r.stream + t * s.D);
  }
  for (int64_t l = m.layers; l-- > 0;) {
    Arena weights{packed};
    Arena layers{keep.at};
    for (int64_t i = 0; i < l; i++) {
      Packed<E>(weights, s);
      Saved<E>(layers, s, pass.T + BLOCK, m.layer[i].q_norm);
    }
    const bool head_norms = m.layer[l].q_norm;
    pass.backward_layer(Packed<E>(weights, s), Saved<E>(layers, s, pass.T + BLOCK, head_norms), head_norms);
    unfold_layer(m, m.layer[l], m.grad[l], pass.r);
  }
  for (int64_t t = 0; t < pass.T; t++) {
    float* to = m.embedding_grad + b.ids[t] * m.hidden;
    for (int64_t i = 0; i < m.hidden; i++) to[i] += pass.r.stream[t * s.D + i];
  }
}

extern "C" {

// Bytes of packed weights, of what a forward pass keeps for its backward pass, and of scratch room.
void sizes(const Model* m, int half, const Batch* b, int64_t* bytes) { R1KIT_CALL(measure, *m, *b, bytes); }

void pack(const Model* m, int half, char* packed, char* room) { R1KIT_CALL(pack_all, *m, packed, room); }

// Final hidden states [T, hidden], after the last norm.
void forward(const Model* m, int half, const Batch* b, char* packed, char* saved, char* room, float* hidden) {
  R1KIT_CALL(run_forward, *m, *b, packed, saved, room, hidden);
}

// Adds to the gradients of all parameters, from that of the hidden states.
void backward(const Model* m, int half, const Batch* b, char* packed, char* saved, char* room, const float* grad) {
  R1KIT_CALL(run_backward, *m, *b, packed, saved, room, grad);
}
}
