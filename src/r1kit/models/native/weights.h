// Weights into the packed forms that the products want, and the sums of a backward pass back into gradients.
#pragma once

#include "layout.h"

// Rows or columns of `count` heads, `width` of each in `wide` places. Everything here goes from place to true row: the
// row at place i, or -1 where there is none.
struct Parts {
  int64_t count, width, wide;
  int64_t at(int64_t i) const { return i % wide < width ? i / wide * width + i % wide : -1; }
};

// 32 rows of gate (true rows 0..n-1), 32 of up (n..2n-1), in turn.
static int64_t paired(int64_t i, int64_t n) {
  const int64_t j = i / (2 * BLOCK) * BLOCK + i % BLOCK;
  return j >= n ? -1 : i / BLOCK % 2 ? n + j : j;
}

// The two packed forms of a weight [padded rows, columns] times `gain` of its columns; `scratch` holds it whole.
template <class E, class Rows>
static void pack_weight(const float* w, int64_t padded, const Rows& row, Parts columns, const float* gain, float* line,
                        E* scratch, E* forward, E* backward) {
  const int64_t wide = columns.count * columns.wide, width = columns.count * columns.width;
  std::memset(line, 0, sizeof(float) * wide);
  for (int64_t i = 0; i < padded; i++) {
    const int64_t r = row(i);
    if (r < 0) {
      std::memset(scratch + i * wide, 0, sizeof(E) * wide);
      continue;
    }
    for (int64_t part = 0; part < columns.count; part++)
      for (int64_t c = 0; c < columns.width; c++) {
        const float x = w[r * width + part * columns.width + c];
        line[part * columns.wide + c] = gain ? x * gain[part * columns.width + c] : x;
      }
    for (int64_t c = 0; c < wide; c += W) put(scratch + i * wide + c, load(line + c));
  }
  pack_columns(scratch, wide, padded, wide, padded, forward, wide * BLOCK);
  pack_rows(scratch, wide, padded, padded, wide, backward, padded * BLOCK);
}

// Sums of a backward pass x^T y are panels [D, 32], for 32 columns of y after another.

// The gradient of a weight whose rows are the columns of y, and of the gain folded into its `width` columns.
template <class Rows>
static void unfold_turned(const float* sums, const float* w, int64_t padded, const Rows& row, int64_t width, int64_t D,
                          const float* gain, float* block, float* __restrict__ w_grad, float* __restrict__ gain_grad) {
  for (int64_t p = 0; p < padded; p += BLOCK) {
    turn_rows(sums + p * D, BLOCK, D, D, BLOCK, block, D);
    for (int64_t i = 0; i < BLOCK; i++) {
      const int64_t r = row(p + i);
      if (r < 0) continue;
      const float *__restrict__ from = block + i * D, *weights = w + r * width;
      float* to = w_grad + r * width;
      for (int64_t c = 0; c < width; c++) {
        to[c] += from[c] * gain[c];
        gain_grad[c] += from[c] * weights[c];
      }
    }
  }
}

// The gradient of a weight [rows, columns] whose columns are those of y.
static void unfold(const float* sums, int64_t rows, Parts columns, int64_t D, float* w_grad) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t part = 0; part < columns.count; part++, w_grad += columns.width)
      for (int64_t first = 0; first < columns.width; first += BLOCK) {
        const float* from = sums + (part * columns.wide + first) * D + r * BLOCK;
        const int64_t n = columns.width - first < BLOCK ? columns.width - first : BLOCK;
        for (int64_t c = 0; c < n; c++) w_grad[first + c] += from[c];
      }
}

// The rows and columns of the weights of a layer, true and padded.
struct Shapes {
  Parts model, heads, mixed, mlp;
  Shapes(const Model& m, const Sizes& s)
      : model{1, m.hidden, s.D}, heads{s.H + 2 * s.G, m.head_dim, s.K}, mixed{s.H, m.head_dim, s.K},
        mlp{1, m.intermediate, s.I} {}
};

template <class E>
static void pack_layer(const Model& m, const Layer& layer, const Packed<E>& w, float* line, E* scratch) {
  const Sizes s(m);
  const Shapes shape(m, s);
  const auto stream = [&](int64_t i) { return shape.model.at(i); };
  const auto head = [&](int64_t i) { return shape.heads.at(i); };
  const auto pair = [&](int64_t i) { return paired(i, m.intermediate); };
  pack_weight(layer.qkv, s.Q, head, shape.model, layer.attention_norm, line, scratch, w.qkv, w.qkv_back);
  pack_weight(layer.output, s.D, stream, shape.mixed, nullptr, line, scratch, w.output, w.output_back);
  pack_weight(layer.gate_up, 2 * s.I, pair, shape.model, layer.mlp_norm, line, scratch, w.gate_up, w.gate_up_back);
  pack_weight(layer.down, s.D, stream, shape.mlp, nullptr, line, scratch, w.down, w.down_back);
  std::memset(w.bias, 0, sizeof(float) * s.Q);
  if (layer.qkv_bias)
    for (int64_t i = 0; i < s.Q; i++)
      if (head(i) >= 0) w.bias[i] = layer.qkv_bias[head(i)];
  std::memset(w.gains, 0, sizeof(float) * 2 * s.K);
  if (layer.q_norm) {
    std::memcpy(w.gains, layer.q_norm, sizeof(float) * m.head_dim);
    std::memcpy(w.gains + s.K, layer.k_norm, sizeof(float) * m.head_dim);
  }
}

// Adds the sums of a layer to the gradients of its parameters.
template <class E>
static void unfold_layer(const Model& m, const Layer& layer, const Layer& grad, const Room<E>& r) {
  const Sizes s(m);
  const Shapes shape(m, s);
  const auto head = [&](int64_t i) { return shape.heads.at(i); };
  const auto pair = [&](int64_t i) { return paired(i, m.intermediate); };
  unfold_turned(r.qkv_sum, layer.qkv, s.Q, head, m.hidden, s.D, layer.attention_norm, r.sum_turned, grad.qkv,
                grad.attention_norm);
  unfold_turned(r.gate_up_sum, layer.gate_up, 2 * s.I, pair, m.hidden, s.D, layer.mlp_norm, r.sum_turned, grad.gate_up,
                grad.mlp_norm);
  unfold(r.output_sum, m.hidden, shape.mixed, s.D, grad.output);
  unfold(r.down_sum, m.hidden, shape.mlp, s.D, grad.down);
  if (layer.qkv_bias)
    for (int64_t i = 0; i < s.Q; i++)
      if (head(i) >= 0) grad.qkv_bias[head(i)] += r.bias_sum[i];
  if (layer.q_norm)
    for (int64_t i = 0; i < m.head_dim; i++) {
      grad.q_norm[i] += r.gain_sum[i];
      grad.k_norm[i] += r.gain_sum[s.K + i];
    }
}
