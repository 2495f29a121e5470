// Weights into the packed forms that the products want, and the sums of a backward pass back into gradients.
#pragma once

#include "layout.h"

// Where true row or column i stands in the padded order: heads of `width` in `wide` places.
struct Parts {
  int64_t count, width, wide;
  int64_t at(int64_t i) const { return i / width * wide + i % width; }
};

// Where true row i of gate (0..n-1) and up (n..2n-1) stands: 32 rows of gate, 32 of up, in turn.
static int64_t paired(int64_t i, int64_t n) {
  const int64_t j = i < n ? i : i - n;
  return j / BLOCK * 2 * BLOCK + j % BLOCK + (i < n ? 0 : BLOCK);
}

// The two packed forms of a weight [rows, columns] times `gain` of its columns; `scratch` holds it whole.
template <class E, class Rows>
static void pack_weight(const float* w, int64_t rows, int64_t padded, const Rows& row, Parts columns, const float* gain,
                        float* line, E* scratch, E* forward, E* backward) {
  const int64_t wide = columns.count * columns.wide, width = columns.count * columns.width;
  std::memset(scratch, 0, sizeof(E) * padded * wide);
  std::memset(line, 0, sizeof(float) * wide);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t part = 0; part < columns.count; part++)
      for (int64_t c = 0; c < columns.width; c++) {
        const float x = w[r * width + part * columns.width + c];
        line[part * columns.wide + c] = gain ? x * gain[part * columns.width + c] : x;
      }
    for (int64_t c = 0; c < wide; c += W) put(scratch + row(r) * wide + c, load(line + c));
  }
  pack_columns(scratch, wide, padded, wide, padded, forward, wide * BLOCK);
  pack_rows(scratch, wide, padded, padded, wide, backward, padded * BLOCK);
}

// The gradient of a weight and of the gain folded into it, from the sum [padded rows, padded columns].
template <class Rows>
static void unfold(const float* sums, const float* w, int64_t rows, const Rows& row, Parts columns, const float* gain,
                   float* __restrict__ w_grad, float* __restrict__ gain_grad) {
  const int64_t wide = columns.count * columns.wide, width = columns.count * columns.width;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t part = 0; part < columns.count; part++) {
      const float* from = sums + row(r) * wide + part * columns.wide;
      const int64_t at = r * width + part * columns.width;
      if (!gain)
        for (int64_t c = 0; c < columns.width; c++) w_grad[at + c] += from[c];
      else
        for (int64_t c = 0; c < columns.width; c++) {
          w_grad[at + c] += from[c] * gain[c];
          gain_grad[c] += from[c] * w[at + c];
        }
    }
}

// The rows and columns of the weights of a layer, true and padded.
struct Shapes {
  Parts model, heads, mixed, mlp;
  int64_t intermediate;
  Shapes(const Model& m, const Sizes& s)
      : model{1, m.hidden, s.D}, heads{s.H + 2 * s.G, m.head_dim, s.K}, mixed{s.H, m.head_dim, s.K},
        mlp{1, m.intermediate, s.I}, intermediate(m.intermediate) {}
};

template <class E>
static void pack_layer(const Model& m, const Layer& layer, const Packed<E>& w, float* line, E* scratch) {
  const Sizes s(m);
  const Shapes shape(m, s);
  const auto plain = [](int64_t r) { return r; };
  pack_weight(layer.qkv, shape.heads.count * m.head_dim, s.Q, [&](int64_t r) { return shape.heads.at(r); }, shape.model,
              layer.attention_norm, line, scratch, w.qkv, w.qkv_back);
  pack_weight(layer.output, m.hidden, s.D, plain, shape.mixed, nullptr, line, scratch, w.output, w.output_back);
  pack_weight(layer.gate_up, 2 * m.intermediate, 2 * s.I, [&](int64_t r) { return paired(r, m.intermediate); },
              shape.model, layer.mlp_norm, line, scratch, w.gate_up, w.gate_up_back);
  pack_weight(layer.down, m.hidden, s.D, plain, shape.mlp, nullptr, line, scratch, w.down, w.down_back);
  std::memset(w.bias, 0, sizeof(float) * s.Q);
  if (layer.qkv_bias)
    for (int64_t i = 0; i < shape.heads.count * m.head_dim; i++) w.bias[shape.heads.at(i)] = layer.qkv_bias[i];
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
  const auto plain = [](int64_t i) { return i; };
  turn_rows(r.qkv_sum, s.Q, s.D, s.D, s.Q, r.sum_turned, s.D);
  unfold(r.sum_turned, layer.qkv, shape.heads.count * m.head_dim, [&](int64_t i) { return shape.heads.at(i); },
         shape.model, layer.attention_norm, grad.qkv, grad.attention_norm);
  turn_rows(r.gate_up_sum, 2 * s.I, s.D, s.D, 2 * s.I, r.sum_turned, s.D);
  unfold(r.sum_turned, layer.gate_up, 2 * m.intermediate, [&](int64_t i) { return paired(i, m.intermediate); },
         shape.model, layer.mlp_norm, grad.gate_up, grad.mlp_norm);
  unfold(r.output_sum, layer.output, m.hidden, plain, shape.mixed, nullptr, grad.output, nullptr);
  unfold(r.down_sum, layer.down, m.hidden, plain, shape.mlp, nullptr, grad.down, nullptr);
  if (layer.qkv_bias)
    for (int64_t i = 0; i < shape.heads.count * m.head_dim; i++) grad.qkv_bias[i] += r.bias_sum[shape.heads.at(i)];
  if (layer.q_norm)
    for (int64_t i = 0; i < m.head_dim; i++) {
      grad.q_norm[i] += r.gain_sum[i];
      grad.k_norm[i] += r.gain_sum[s.K + i];
    }
}
