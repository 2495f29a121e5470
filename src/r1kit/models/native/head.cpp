// Log-prob of a target and entropy at each token, straight from hidden states and the head's weight, and the way back.
//
// Why it exists: the vocabulary of a tiny model is small, so PyTorch spends its time in passes over logits. Here those
// of 32 tokens exist at a time, in the core's cache; the backward pass makes them again. Softmax and sums are float.

#include "layout.h"

extern "C" {

struct Head {
  int64_t vocab, hidden;
  const float* weight;  // [vocab, hidden]
  float* grad;          // null in a forward pass
};

struct Tokens {
  int64_t count;
  const float* hidden;         // [count, hidden]
  const int64_t* targets;      // [count]
  const float* temperatures;   // [count], or null: all 1
};
}

// Tokens at a time in the backward pass: few, for the gradients of all their logits exist at once.
constexpr int64_t TOKENS = 128;

template <class E>
struct HeadRoom {
  int64_t V, D;
  E *forward, *backward;             // packed: B = head^T, and B = head
  E *rows, *delta, *turned, *panel;  // of a chunk: hidden states, gradients of logits, and both as sides of a product
  float *logits, *block, *sums;      // [32, V], [32, D], [V, D]
  int64_t packed_bytes, bytes;
  HeadRoom(const Head& h, char* packed, char* room) : V(whole(h.vocab)), D(whole(h.hidden)) {
    Arena weights{packed}, scratch{room};
    forward = weights.take<E>(V * D);
    backward = weights.take<E>(V * D);
    for (E** p : {&rows, &panel}) *p = scratch.take<E>(TOKENS * D);
    for (E** p : {&delta, &turned}) *p = scratch.take<E>(TOKENS * V);
    logits = scratch.take<float>(BLOCK * V);
    block = scratch.take<float>(BLOCK * D);
    sums = scratch.take<float>(V * D);
    packed_bytes = weights.at - packed;
    bytes = scratch.at - room;
  }
};

// Rows of floats [count, width] into E rows of D places; up to a whole block, zeros.
template <class E>
static void fill(const float* from, int64_t count, int64_t width, int64_t D, float* line, E* to) {
  std::memset(line, 0, sizeof(float) * D);
  for (int64_t i = 0; i < count; i++) {
    std::memcpy(line, from + i * width, sizeof(float) * width);
    for (int64_t j = 0; j < D; j += W) put(to + i * D + j, load(line + j));
  }
  std::memset(to + count * D, 0, sizeof(E) * (whole(count) - count) * D);
}

template <class E>
static void pack_weight(const Head& h, char* packed, char* room) {
  const HeadRoom<E> r(h, packed, room);
  E* whole_weight = reinterpret_cast<E*>(r.sums);  // not in use now
  std::memset(whole_weight, 0, sizeof(E) * r.V * r.D);
  fill(h.weight, h.vocab, h.hidden, r.D, r.block, whole_weight);
  pack_columns(whole_weight, r.D, r.V, r.D, r.V, r.forward, r.D * BLOCK);
  pack_rows(whole_weight, r.D, r.V, r.V, r.D, r.backward, r.V * BLOCK);
}

static inline float inverse_temperature(const Tokens& x, int64_t t) {
  return x.temperatures ? 1.0f / x.temperatures[t] : 1.0f;
}

template <class E>
static void logits_of(const HeadRoom<E>& r, const E* rows) {
  product<false>(BLOCK, r.V / BLOCK, r.D, rows, r.D, BLOCK, r.forward, r.D * BLOCK, r.logits, r.V);
}

// With x the logits over the temperature: log-prob of the target, entropy, and of x the highest and the log of the sum
// of exp(x - the highest), [2, count].
template <class E>
static void run_forward(const Head& h, const Tokens& x, char* packed, char* room, float* logprobs, float* entropy,
                        float* softmax) {
  const HeadRoom<E> r(h, packed, room);
  for (int64_t t = 0; t < x.count; t += BLOCK) {
    const int64_t n = x.count - t < BLOCK ? x.count - t : BLOCK;
    fill(x.hidden + t * h.hidden, n, h.hidden, r.D, r.block, r.rows);
    logits_of(r, r.rows);
    for (int64_t i = 0; i < n; i++) {
      float* row = r.logits + i * r.V;
      const float inverse = inverse_temperature(x, t + i), target = row[x.targets[t + i]] * inverse;
      const float most = masked_highest(row, h.vocab, r.V) * inverse;
      vf total = vf{}, mean = vf{};
      for (int64_t j = 0; j < r.V; j += W) {
        vf below = load(row + j) * inverse - most;
        below = below < -87.0f ? splat(-87.0f) : below;
        const vf weight = vexp(below);
        total += weight;
        mean += weight * below;
      }
      const float all = sum(total), log_all = std::log(all);
      logprobs[t + i] = target - most - log_all;
      entropy[t + i] = log_all - sum(mean) / all;
      softmax[t + i] = most;
      softmax[x.count + t + i] = log_all;
    }
  }
}

// Gradients of the logits of one row in place: grad / temperature * (onehot - p). Behind the vocabulary stand numbers
// that meet zeros of the head's weight.
static void logit_gradients(float* row, int64_t V, float inverse, float most, float log_all, float grad,
                            int64_t target) {
  const float scale = grad * inverse;
  for (int64_t j = 0; j < V; j += W) store(row + j, vexp(load(row + j) * inverse - most - log_all) * -scale);
  row[target] += scale;
}

// hidden_grad [count, hidden] from the gradients of the log-probs, and those of the head are added to what is there.
template <class E>
static void run_backward(const Head& h, const Tokens& x, char* packed, char* room, const float* softmax,
                         const float* grads, float* hidden_grad) {
  const HeadRoom<E> r(h, packed, room);
  std::memset(r.sums, 0, sizeof(float) * r.V * r.D);
  for (int64_t start = 0; start < x.count; start += TOKENS) {
    const int64_t rows = x.count - start < TOKENS ? x.count - start : TOKENS, depth = whole(rows);
    fill(x.hidden + start * h.hidden, rows, h.hidden, r.D, r.block, r.rows);
    for (int64_t b = 0; b < rows; b += BLOCK) {
      const int64_t t = start + b, n = rows - b < BLOCK ? rows - b : BLOCK;
      logits_of(r, r.rows + b * r.D);
      for (int64_t i = 0; i < n; i++)
        logit_gradients(r.logits + i * r.V, r.V, inverse_temperature(x, t + i), softmax[t + i],
                        softmax[x.count + t + i], grads[t + i], x.targets[t + i]);
      E* delta = r.delta + b * r.V;
      for (int64_t j = 0; j < BLOCK * r.V; j += W) put(delta + j, load(r.logits + j));
      product<false>(BLOCK, r.D / BLOCK, r.V, delta, r.V, BLOCK, r.backward, r.V * BLOCK, r.block, r.D);
      for (int64_t i = 0; i < n; i++)
        std::memcpy(hidden_grad + (t + i) * h.hidden, r.block + i * r.D, sizeof(float) * h.hidden);
    }
    turn_rows(r.delta, r.V, rows, depth, r.V, r.turned, depth);
    pack_rows(r.rows, r.D, rows, depth, r.D, r.panel, depth * BLOCK);
    product<true>(r.V, r.D / BLOCK, depth, r.turned, depth, BLOCK, r.panel, depth * BLOCK, r.sums, r.D);
  }
  for (int64_t v = 0; v < h.vocab; v++)
    for (int64_t i = 0; i < h.hidden; i++) h.grad[v * h.hidden + i] += r.sums[v * r.D + i];
}

template <class E>
static void measure(const Head& h, int64_t* bytes) {
  const HeadRoom<E> r(h, nullptr, nullptr);
  bytes[0] = r.packed_bytes;
  bytes[1] = r.bytes;
}

extern "C" {

// Bytes of the packed weight and of scratch room.
void sizes(const Head* h, int half, int64_t* bytes) { R1KIT_CALL(measure, *h, bytes); }

void pack(const Head* h, int half, char* packed, char* room) { R1KIT_CALL(pack_weight, *h, packed, room); }

// Log-probs and entropies, [count], and what the backward pass needs, [2, count].
void forward(const Head* h, int half, const Tokens* x, char* packed, char* room, float* logprobs, float* entropy,
             float* softmax) {
  R1KIT_CALL(run_forward, *h, *x, packed, room, logprobs, entropy, softmax);
}

void backward(const Head* h, int half, const Tokens* x, char* packed, char* room, const float* softmax,
              const float* grads, float* hidden_grad) {
  R1KIT_CALL(run_backward, *h, *x, packed, room, softmax, grads, hidden_grad);
}
}
