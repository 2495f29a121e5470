// Causal grouped-query attention over one sequence of L tokens, forward and backward.
//
// `qkv` holds a row of Q numbers for each token: heads of q, of k, of v, rotated. Scores are made a strip of 32 rows at
// a time and made again in the backward pass from the maximum and the sum of each row.
#pragma once

#include "layout.h"

// One row of scores to weights, not yet divided by their sum: those of the first `valid`, zeros up to `columns`.
template <class E>
static Softmax soften(const float* scores, int64_t valid, int64_t columns, float scale, E* to) {
  const int64_t last = (valid - 1) / W * W;
  const vf tail = lanes() < int32_t(valid - last) ? load(scores + last) : splat(-1e30f);
  vf most = tail;
  for (int64_t j = 0; j < last; j += W) most = load(scores + j) > most ? load(scores + j) : most;
  const float shift = highest(most) * scale;
  vf total = vf{};
  for (int64_t j = 0; j <= last; j += W) {
    const vf weight = exponential(to, (j < last ? load(scores + j) : tail) * scale - shift);
    total += weight;
    put(to + j, weight);
  }
  for (int64_t j = last + W; j < columns; j += W) put(to + j, vf{});
  return {shift, 1.0f / sum(total)};
}

// mixed [L, A] and the softmax of each row, [L, H], from qkv.
template <class E>
static void attend(const Sizes& s, const AttentionRoom<E>& r, const E* qkv, int64_t L, E* mixed, Softmax* rows) {
  const int64_t places = whole(L), panel = places * BLOCK;
  for (int64_t g = 0; g < s.G; g++) {
    pack_columns(qkv + (s.H + g) * s.K, s.Q, L, s.K, places, r.key, s.K * BLOCK);
    pack_rows(qkv + (s.H + s.G + g) * s.K, s.Q, L, places, s.K, r.value, panel);
    for (int64_t h = g * (s.H / s.G); h < (g + 1) * (s.H / s.G); h++)
      for (int64_t first = 0; first < L; first += BLOCK) {
        const int64_t columns = first + BLOCK, count = L - first < BLOCK ? L - first : BLOCK;
        Softmax* row = rows + first * s.H + h;
        product<false>(BLOCK, columns / BLOCK, s.K, qkv + first * s.Q + h * s.K, s.Q, BLOCK, r.key, s.K * BLOCK,
                       r.scores, places);
        for (int64_t i = 0; i < count; i++)
          row[i * s.H] = soften(r.scores + i * places, first + i + 1, columns, s.scale, r.weights + i * places);
        product<false>(BLOCK, s.K / BLOCK, columns, r.weights, places, BLOCK, r.value, panel, r.mixed, s.K);
        for (int64_t i = 0; i < count; i++)
          for (int64_t k = 0; k < s.K; k += W)
            put(mixed + (first + i) * s.A + h * s.K + k, load(r.mixed + i * s.K + k) * row[i * s.H].inverse);
      }
  }
}

// A strip of 32 keys j against all queries i from `first` on, both turned: weights and gradients of scores, [32, i].
template <class E>
static void strip_backward(const Sizes& s, const AttentionRoom<E>& r, const E* qkv, int64_t g, int64_t first,
                           int64_t L) {
  const int64_t places = whole(L), columns = places - first, panel = s.K * BLOCK, at = first / BLOCK * panel;
  product<false>(BLOCK, columns / BLOCK, s.K, qkv + first * s.Q + (s.H + g) * s.K, s.Q, BLOCK, r.key + at, panel,
                 r.scores, places);
  product<false>(BLOCK, columns / BLOCK, s.K, qkv + first * s.Q + (s.H + s.G + g) * s.K, s.Q, BLOCK, r.out_grad + at,
                 panel, r.weight_grads, places);
  for (int64_t j = 0; j < BLOCK; j++) {
    E *weights = r.weights + j * places, *grads = r.score_grads + j * places;
    if (first + j >= L) {  // behind the last key stands another sequence
      for (int64_t i = 0; i < columns; i += W) {
        put(weights + i, vf{});
        put(grads + i, vf{});
      }
      continue;
    }
    for (int64_t i = 0; i < columns; i += W) {
      vf weight = exponential(weights, load(r.scores + j * places + i) * s.scale - load(r.shift + first + i));
      weight *= load(r.inverse + first + i);
      if (i < j) weight = lanes() >= int32_t(j - i) ? weight : vf{};
      put(weights + i, weight);
      put(grads + i, weight * (load(r.weight_grads + j * places + i) - load(r.delta + first + i)) * s.scale);
    }
  }
}

// Gradients of one head's query rows, and (ADD) of its key and value rows, into the room.
template <bool ADD, class E>
static void head_backward(const Sizes& s, const AttentionRoom<E>& r, const E* qkv, int64_t g, int64_t L) {
  const int64_t places = whole(L), panel = places * BLOCK;
  for (int64_t first = 0; first < L; first += BLOCK) {
    strip_backward(s, r, qkv, g, first, L);
    const int64_t depth = places - first;
    product<ADD>(BLOCK, s.K / BLOCK, depth, r.weights, places, BLOCK, r.value + first * BLOCK, panel, r.v_grad + first * s.K,
                 s.K);
    product<ADD>(BLOCK, s.K / BLOCK, depth, r.score_grads, places, BLOCK, r.query_rows + first * BLOCK, panel,
                 r.k_grad + first * s.K, s.K);
    turn_rows(r.score_grads, places, BLOCK, BLOCK, depth, r.score_grads_all + first * places + first, places);
  }
}

// Calls sink(row, head, gradient [K]) for every head of q, k and v (in the order of qkv) and every token.
template <class E, class Sink>
static void attend_backward(const Sizes& s, const AttentionRoom<E>& r, const E* qkv, int64_t L, const E* mixed,
                            const Softmax* rows, const E* mixed_grad, const Sink& sink) {
  const int64_t places = whole(L), panel = places * BLOCK, each = s.H / s.G;
  for (int64_t g = 0; g < s.G; g++) {
    pack_rows(qkv + (s.H + g) * s.K, s.Q, L, places, s.K, r.key_rows, panel);
    for (int64_t h = g * each; h < (g + 1) * each; h++) {
      const E *query = qkv + h * s.K, *grad = mixed_grad + h * s.K;
      pack_columns(query, s.Q, L, s.K, places, r.key, s.K * BLOCK);
      pack_columns(grad, s.A, L, s.K, places, r.out_grad, s.K * BLOCK);
      pack_rows(query, s.Q, L, places, s.K, r.query_rows, panel);
      pack_rows(grad, s.A, L, places, s.K, r.value, panel);
      for (int64_t i = 0; i < places; i++) {
        vf delta = vf{};
        if (i < L)
          for (int64_t k = 0; k < s.K; k += W) delta += load(grad + i * s.A, k) * load(mixed + i * s.A + h * s.K, k);
        r.delta[i] = sum(delta);
        const Softmax row = i < L ? rows[i * s.H + h] : Softmax{};  // no weight behind the last query
        r.shift[i] = row.shift;
        r.inverse[i] = row.inverse;
      }
      h == g * each ? head_backward<false>(s, r, qkv, g, L) : head_backward<true>(s, r, qkv, g, L);
      for (int64_t first = 0; first < L; first += BLOCK) {
        product<false>(BLOCK, s.K / BLOCK, first + BLOCK, r.score_grads_all + first * places, places, BLOCK,
                       r.key_rows, panel, r.q_grad, s.K);
        for (int64_t i = first; i < L && i < first + BLOCK; i++) sink(i, h, r.q_grad + (i - first) * s.K);
      }
    }
    for (int64_t i = 0; i < L; i++) {
      sink(i, s.H + g, r.k_grad + i * s.K);
      sink(i, s.H + s.G + g, r.v_grad + i * s.K);
    }
  }
}
