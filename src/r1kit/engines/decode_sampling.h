// From scores to a token: inverse transform sampling with one counter-based uniform number for each token.
#pragma once

#include "vectors.h"

// As in randomness.py: SplitMix64 of the response's key and the token's position, 53 random bits in [0, 1).
static inline double uniform(uint64_t key, int64_t position) {
  uint64_t z = key + (uint64_t(position) + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

struct Drawn {
  int64_t token;
  double logprob;
};

// The first token whose cumulative probability under softmax(scores / temperature) passes u, or where `greedy` the
// likeliest, and its log-prob. `row` is used up, up to whole vectors behind `vocab`; what is not a number gives some
// token and a log-prob that is no number either.
static Drawn draw_one(float* row, int64_t vocab, float temperature, bool greedy, double u) {
  const int64_t stride = (vocab + W - 1) / W * W;
  const float highest = masked_highest(row, vocab, stride), colder = 1.0f / temperature;
  int64_t token = 0;
  if (greedy)
    while (token < vocab - 1 && !(row[token] == highest)) token++;
  vf check = vf{};  // vexp bounds its argument, so what is not finite has to be seen before it
  double total = 0;
  for (int64_t j = 0; j < stride; j += W) {
    const vf x = (load(row + j) - highest) * colder, weight = vexp(x);
    check += x * 0.0f;
    store(row + j, weight);
    total += sum(weight);
  }
  if (!greedy) {
    const double target = u * total;
    double passed = 0;  // by whole vectors, then one by one within the vector that holds the token
    for (; token + W < vocab; token += W) {
      const double more = sum(load(row + token));
      if (passed + more > target) break;
      passed += more;
    }
    const int64_t last = token + W < vocab ? token + W - 1 : vocab - 1;
    for (passed += row[token]; token < last && !(passed > target);) passed += row[++token];
  }
  return {token, std::log(row[token] / total) + sum(check)};
}
