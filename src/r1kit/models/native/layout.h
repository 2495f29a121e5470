// How the training pass lays out its arguments and its memory.
#pragma once

#include "products.h"

extern "C" {

struct Layer {
  float *attention_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *output, *mlp_norm, *gate_up, *down;  // some may be null
};

struct Model {
  int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  float eps;
  const float* turns;  // [positions, 2, padded head_dim]: cosines, and sines with the sign of the partner
  float *embedding, *final_norm, *embedding_grad, *final_norm_grad;
  const Layer *layer, *grad;
};

struct Batch {
  int64_t sequences;
  const int64_t* lengths;
  const int64_t* ids;  // flat, one sequence after another
};
}

// Rows of one block, and the fewest of a chunk that is not the last. Measured; the optimum is flat.
constexpr int64_t ROWS = 32, CHUNK = 512;

struct Sizes {
  int64_t D, H, G, K, I, Q, A, rotated;  // widths padded: model, one head, MLP, all heads of q, k and v, those of q
  float scale;
  explicit Sizes(const Model& m)
      : D(whole(m.hidden)), H(m.heads), G(m.kv_heads), K(whole(m.head_dim)), I(whole(m.intermediate)),
        Q((H + 2 * G) * K), A(H * K), rotated(H + G), scale(1.0f / std::sqrt(float(m.head_dim))) {}
};

// What softmax made of a row of scores: scale * the highest, and 1 / the sum of exp(scale * score - shift).
struct Softmax {
  float shift, inverse;
};

// Hands out aligned pieces of a buffer; from address 0 it only counts.
struct Arena {
  char* at;
  template <class T>
  T* take(int64_t n) {
    T* piece = reinterpret_cast<T*>(at);
    at += (n * int64_t(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
};

// Weights of one layer as the products want them: for the forward pass, and turned for the backward pass.
template <class E>
struct Packed {
  E *qkv, *output, *gate_up, *down, *qkv_back, *output_back, *gate_up_back, *down_back;
  float *bias, *gains;  // [Q], [rotated heads, K]
  Packed(Arena& arena, const Sizes& s) {
    for (E** w : {&qkv, &qkv_back}) *w = arena.take<E>(s.Q * s.D);
    for (E** w : {&output, &output_back}) *w = arena.take<E>(s.A * s.D);
    for (E** w : {&gate_up, &gate_up_back}) *w = arena.take<E>(2 * s.I * s.D);
    for (E** w : {&down, &down_back}) *w = arena.take<E>(s.I * s.D);
    bias = arena.take<float>(s.Q);
    gains = arena.take<float>(2 * s.K);
  }
};

// What the backward pass needs of one layer, a row for each token. `gate_up` holds for each chunk one panel after another,
// [rows, pairs of 32 of gate and up]: as they are read again, which the processor can foresee.
template <class E>
struct Saved {
  E *normed, *qkv, *heads, *mixed, *mlp_normed, *gate_up;  // heads: normalised q and k before their gain
  float *rstd, *mlp_rstd, *head_rstd;
  Softmax* softmax;
  Saved(Arena& arena, const Sizes& s, int64_t T, bool head_norms) {
    normed = arena.take<E>(T * s.D);
    qkv = arena.take<E>(T * s.Q);
    heads = arena.take<E>(head_norms ? T * s.rotated * s.K : 0);
    mixed = arena.take<E>(T * s.A);
    mlp_normed = arena.take<E>(T * s.D);
    gate_up = arena.take<E>(T * 2 * s.I);
    rstd = arena.take<float>(T);
    mlp_rstd = arena.take<float>(T);
    head_rstd = arena.take<float>(head_norms ? T * s.rotated : 0);
    softmax = arena.take<Softmax>(T * s.H);
  }
};

// What it needs of the last norm.
struct SavedLast {
  float *normed, *rstd;
  SavedLast(Arena& arena, const Sizes& s, int64_t T) {
    normed = arena.take<float>(T * s.D);
    rstd = arena.take<float>(T);
  }
};

// Room for attention over one sequence of up to L places.
template <class E>
struct AttentionRoom {
  E *key, *query, *value, *out_grad, *query_rows, *key_rows, *weights, *score_grads, *score_grads_all;
  float *scores, *weight_grads, *mixed, *q_grad, *k_grad, *v_grad, *delta, *shift, *inverse;
  AttentionRoom(Arena& arena, const Sizes& s, int64_t L) {
    for (E** p : {&key, &query, &value, &out_grad, &query_rows, &key_rows}) *p = arena.take<E>(L * s.K);
    for (E** p : {&weights, &score_grads}) *p = arena.take<E>(BLOCK * L);
    score_grads_all = arena.take<E>(L * L);
    for (float** p : {&scores, &weight_grads}) *p = arena.take<float>(BLOCK * L);
    for (float** p : {&mixed, &q_grad}) *p = arena.take<float>(BLOCK * s.K);
    for (float** p : {&k_grad, &v_grad}) *p = arena.take<float>(L * s.K);
    for (float** p : {&delta, &shift, &inverse}) *p = arena.take<float>(L);
  }
};

// Room for one call over T tokens, for chunks of up to C rows.
template <class E>
struct Room {
  int64_t rows;  // C
  int64_t* position;
  float *stream, *block;          // [T, D]: residual stream, or its gradient; products of one block of rows
  E *act, *gate_up, *wide, *back;  // panels of `act` in use; of a chunk: panels [2I / 32, C, 32], [C, Q], [C, D]
  E *mixed;                        // [C, A]
  E *turned, *turned_too, *panel;  // sides of weight gradients turned, [C / 32, D, 32]; a panel of the other side, [C, 32]
  float *sums, *qkv_sum, *gate_up_sum, *output_sum, *down_sum, *bias_sum, *gain_sum;  // of one layer
  float *sum_turned, *line;  // 32 columns of sums, [32, D]; one row of anything
  AttentionRoom<E> attention;
  Room(Arena& arena, const Sizes& s, int64_t T, int64_t C, int64_t L) : rows(C), attention(arena, s, L) {
    position = arena.take<int64_t>(T);
    stream = arena.take<float>(T * s.D);
    block = arena.take<float>(ROWS * (s.Q + s.D + 2 * s.A));
    act = arena.take<E>(ROWS * s.I > C * BLOCK ? ROWS * s.I : C * BLOCK);
    gate_up = arena.take<E>(C * 2 * s.I);
    wide = arena.take<E>(C * s.Q);
    back = arena.take<E>(C * s.D);
    mixed = arena.take<E>(C * s.A);
    for (E** p : {&turned, &turned_too}) *p = arena.take<E>(C * s.D);
    panel = arena.take<E>(C * BLOCK);
    sums = qkv_sum = arena.take<float>(s.D * s.Q);
    gate_up_sum = arena.take<float>(s.D * 2 * s.I);
    output_sum = arena.take<float>(s.D * s.A);
    down_sum = arena.take<float>(s.D * s.I);
    bias_sum = arena.take<float>(s.Q);
    gain_sum = arena.take<float>(2 * s.K);
    sum_turned = arena.take<float>(BLOCK * s.D);
    line = arena.take<float>(s.D + s.Q + s.A + s.I);
  }
};
