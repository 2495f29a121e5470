"""What every number of the report means, where it should be, and what to do when it is not.

The order is the order of reading: results first, then behaviour, then the health of the training itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.config.schedules import SCHEDULED


@dataclass(frozen=True)
class Entry:
    """One metric. `keys` are its names in metrics.jsonl and in evaluations."""

    name: str
    keys: tuple[str, ...]
    meaning: str
    healthy: str
    action: str

    @property
    def anchor(self) -> str:
        return "term-" + self.name.lower().replace("@", "-at-").replace(",", "").replace(" ", "-")


GLOSSARY: tuple[Entry, ...] = (
    Entry(
        "pass@1",
        ("pass@1", "pass@1_low", "pass@1_high"),
        "The chance that one sampled response is right: the mean over k samples of each held-out problem. "
        "The interval (95 %) comes from drawing whole families of problems again and again, so that "
        "problems made of the same material count as one piece of evidence.",
        "Starts at 4–16 % for a tiny base and rises fastest in the first third of the RL steps.",
        "Flat from the start: look at useful groups (is there anything to learn from?) and at verdicts "
        "right (can the base check itself?). Training accuracy rises but this does not: the policy has "
        "memorised; use more problems.",
    ),
    Entry(
        "pass@k",
        ("pass@k",),
        "The chance that at least one of k samples is right, estimated without bias from all samples of a problem.",
        "Well above pass@1 before RL: that gap is what RL turns into pass@1. Afterwards the two lie closer together.",
        "pass@k of the base near its pass@1: the base explores too little; train the base longer before RL.",
    ),
    Entry(
        "pass@1, second verifier",
        ("pass@1_second",),
        "The same responses judged by another verifier than the one that pays the reward: the task's own rule where "
        "task.verifier took its place, or the function that evaluate.verifier names.",
        "Within the interval of pass@1.",
        "Falls behind pass@1: the policy has found a hole in the training verifier. Read what only the first calls "
        "right, and mend it.",
    ),
    Entry(
        "training accuracy",
        ("accuracy",),
        "The share of right responses among everything sampled in the step, on training problems.",
        "Close to held-out pass@1. With dynamic sampling it counts the dropped groups too.",
        "Far above held-out pass@1: too few training problems. Near 100 %: the task is used up; make it harder.",
    ),
    Entry(
        "reward",
        ("reward",),
        "The mean reward of a response: the weighted sum of the parts that the recipe names. Nothing in it "
        "counts attempts, checks or length, unless the recipe names a part that does.",
        "Rises together with accuracy.",
        "Rises without accuracy: the policy earns the format part alone. Lower that weight, or use advantage: none.",
    ),
    Entry(
        "reward parts",
        ("reward_accuracy", "reward_format"),
        "reward_NAME is the mean of one part of the reward, its weight applied; it is missing in steps in which the "
        "part is not paid. monitored_NAME is the mean of a part of weight 0, which is watched and not paid.",
        "The accuracy part carries the reward.",
        "The format part alone rises: see reward. A monitored part falls while the reward rises: what is paid is "
        "bought with it; give it a weight.",
    ),
    Entry(
        "format",
        ("format", "format_finished"),
        "The share of responses with one think block followed by one answer block. 'Of finished' leaves "
        "out the responses that ran into the cap, which cannot be well-formed.",
        "Above 95 % of finished responses by the end.",
        "1.0 while accuracy falls to 0: format hacking; see reward. Stays low: the base has hardly seen the tags.",
    ),
    Entry(
        "response tokens",
        ("response_tokens", "tokens_mean"),
        "The mean number of tokens in a response, the stop token included, those cut at the cap included.",
        "At least doubles over a run, on its own: nothing rewards length. A late fall with rising accuracy "
        "is fine: the policy stops trying what cannot work.",
        "Falls while accuracy rises: the policy learns better guesses instead of search. Its base checks "
        "itself badly; see verdicts right.",
    ),
    Entry(
        "length by correctness",
        ("response_tokens_right", "response_tokens_wrong"),
        "The mean number of tokens of the right and of the wrong responses of a step, in training.",
        "Wrong ones are longer: they go on searching until the cap.",
        "Both at the cap: raise it (a schedule can). Wrong ones far shorter than right ones: the policy gives up.",
    ),
    Entry(
        "truncated",
        ("truncated",),
        "The share of responses that reached the cap without ending. They count as wrong.",
        "Rises with length, peaks, then falls below its peak in the last third.",
        "Above 40 % and rising: raise max_tokens, or turn on the overlong part of the reward.",
    ),
    Entry(
        "attempts",
        ("attempts",),
        "Candidate solutions written down in one response.",
        "Rises from about 2 to between 6 and 8.",
        "Falls towards 1: search is being unlearned; see response tokens.",
    ),
    Entry(
        "backtracking",
        ("backtracking",),
        "The share of responses that reject one attempt in words ('no') and write another.",
        "Above 80 % by the end. It is present in the base and RL makes it the rule.",
        "Falls: as for attempts.",
    ),
    Entry(
        "verification",
        ("verification",),
        "The share of responses that check a result against the question, in the form that the task recognises.",
        "High and steady, or rising.",
        "Falls while accuracy rises: the working is becoming decoration; look at verdicts right and arithmetic right.",
    ),
    Entry(
        "verdicts right",
        ("verdict_right",),
        "Of the verdicts written ('yes', 'no'), the share that is true. It decides whether search can pay: "
        "a model that cannot tell a hit from a miss gains nothing by trying again.",
        "Above 97 % in the base and rising.",
        "Below 90 % in the base: pre-train longer or clean the corpus before spending on RL.",
    ),
    Entry(
        "arithmetic right",
        ("arithmetic_right",),
        "Of the equations written, the share that holds.",
        "Above 80 % after pre-training, not falling during RL.",
        "Falls while accuracy rises: the written working no longer carries the answer.",
    ),
    Entry(
        "numbers right",
        ("numbers_right",),
        "Of the attempts written, the share that uses exactly the numbers given.",
        "A late and rather sudden rise in pre-training, which the loss hardly shows. Above 85 % before RL starts.",
        "Still low at the end of pre-training: give the base more tokens; RL cannot mend this cheaply.",
    ),
    Entry(
        "right, of finished",
        ("right_finished",),
        "The share of right answers among the responses that ended by themselves.",
        "Well above pass@1 while many responses are truncated; the two meet as truncation goes away.",
        "Falls while truncated falls: the policy stops early and guesses.",
    ),
    Entry(
        "repeated attempts",
        ("repeats",),
        "Of the attempts written, the share that repeats an earlier one of the same response to the letter.",
        "Below 30 %; lower is cheaper.",
        "Rising: responses fill up with what has failed already; lower max_tokens, or reward shorter search.",
    ),
    Entry(
        "repetition",
        ("repetition", "one_token"),
        "repetition: the share of 4-grams of tokens that occurred before in the same response. one_token: the share of "
        "a response that is its commonest token.",
        "Steady. Formats with a fixed grammar repeat by nature; look at the change, not at the height.",
        "Rises fast: the policy falls into loops; the alarm one_token_repetition fires at 50 %. Lower the learning "
        "rate; look at the gap between engine and trainer.",
    ),
    Entry(
        "reflection words",
        ("reflection_words",),
        "Words such as wait, but, however, mistake, check, verify per 1,000 tokens, in the first response of up to 32 "
        "groups.",
        "Rises with length where reasoning emerges (five- to sevenfold in DeepSeek-R1-Zero). Words are not thoughts: "
        "believe it only where accuracy rises too.",
        "Rises alone: read the responses; it may be imitation.",
    ),
    Entry(
        "code share",
        ("code_share",),
        "The share of a response's characters inside code fences.",
        "As the task asks. In math it falls early in RL from bases that answer with programs; length falls with it.",
        "Nothing to do; it explains a fall of length at the start.",
    ),
    Entry(
        "language share",
        ("language_share",),
        "The share of the words of a response that are in the language of its prompt. Missing where either has too few "
        "words to tell.",
        "Near 100 %.",
        "Falls: languages mix. Add the reward part language (DeepSeek-R1 pays for it at a slight cost of accuracy).",
    ),
    Entry(
        "the thought",
        (
            "thought_words",
            "thought_code_share",
            "thought_formula_share",
            "thought_language_share",
            "thought_loop",
            "reflection_rate",
            "doubt_rate",
            "check_rate",
            "retry_rate",
        ),
        "Tasks of questions in words measure the thought alone, of every response: its words, the shares of code, "
        "formulas and the main language in it, whether it ends in a loop, and words of reflection (doubt, check, "
        "retry) per 1,000 words.",
        "reflection_rate rises with thought_words where reasoning emerges; thought_loop near 0.",
        "thought_loop rises: lower the learning rate, or raise the cap if responses are cut. "
        "thought_language_share falls: languages mix; add the reward part language.",
    ),
    Entry(
        "entropy",
        ("entropy",),
        "The mean uncertainty, in nats, of the next-token distribution over the sampled tokens.",
        "Falls slowly and keeps well above zero.",
        "Collapses within a few steps: lower the learning rate or raise clip_high. Climbs without end: lower both.",
    ),
    Entry(
        "useful groups",
        ("useful_groups",),
        "The share of judged groups whose rewards differ. When all samples of a problem are right, or all wrong, "
        "the advantage is zero and the group teaches nothing. With a critic or no baseline, and without dynamic "
        "sampling, the rewards of the whole step are compared: all groups are useful, or none.",
        "Above 50 %. Dynamic sampling replaces the others.",
        "Low with accuracy low: problems too hard, or group too small. Low with accuracy high: problems too easy.",
    ),
    Entry(
        "group outcomes",
        ("all_right", "all_wrong"),
        "The shares of sampled groups of which every response is right, and of which none is.",
        "all_wrong falls and all_right rises as the policy learns.",
        "One of them near 100 %: problems too hard or used up; a pool (pools.enabled) asks the others more often.",
    ),
    Entry(
        "problem pool",
        ("pool_asked", "pool_hard", "pool_band", "pool_easy"),
        "Of the problems asked so far (their share of all is pool_asked), the shares whose pass rate lies below, "
        "inside and above the band pools.low..pools.high, by posterior mean.",
        "Most in the band.",
        "Mostly easy or hard: the data no longer fits the policy; change it, or the mix.",
    ),
    Entry(
        "gradient norm",
        ("grad_norm",),
        "The length of the gradient before it is clipped to grad_clip.",
        "Steady, of the size of grad_clip or smaller, without spikes.",
        "Spikes: lower the learning rate. Always far above grad_clip: the clip is your learning rate.",
    ),
    Entry(
        "clip share",
        ("clip_low", "clip_high"),
        "The share of tokens whose probability moved out of the trust region, so that their gradient is "
        "cut. Zero when every batch is used for one optimiser step (strictly on-policy).",
        "0 with one minibatch; below 1–2 % with several.",
        "Above 5 %: fewer minibatches or a lower learning rate.",
    ),
    Entry(
        "KL",
        ("approx_kl", "kl"),
        "How far the policy moved: approx_kl from the policy that sampled the batch, kl from the reference "
        "policy (only where the recipe keeps one).",
        "approx_kl below 0.01 in every step.",
        "Jumps: lower the learning rate; check that sampling and training use the same dtype.",
    ),
    Entry(
        "ratio",
        ("ratio",),
        "The mean of new over old probability of the trained tokens.",
        "1 with one minibatch, but for carried groups.",
        "Far from 1: fewer minibatches, a lower learning rate, or a smaller dynamic_sampling.max_age.",
    ),
    Entry(
        "gap of engine and trainer",
        (
            "gap_mean",
            "gap_p95",
            "gap_max",
            "gap_k3",
            "gap_ess",
            "gap_sequence_mean",
            "gap_sequence_p95",
            "gap_sequence_max",
            "gap_sequence_ess",
            "noise_mean",
            "noise_p95",
            "noise_max",
            "noise_sequence_max",
        ),
        "The difference between the log-probs that the engine reported and those that the trainer computes for the "
        "same tokens and weights, before anything is masked: absolute values per token and summed per response, in "
        "nats; k3 estimates the KL between the two; ess is the effective sample size of the ratios, a share. "
        "noise: the trainer against itself with other micro-batches. Written in the first step, and in every step "
        "where a correction is on; with carried groups it holds the policy's own move too.",
        "Of the size of the noise (in the quick start at most 1.2e-6 a token in float32, 3.3e-3 in bfloat16); compiled "
        "in bfloat16, where the noise is 0, 0.03 at most and 0.001 in the mean; ess 1.",
        "Far above the noise: another dtype, template or weight version on one side, or top-p. Find it before "
        "correcting.",
    ),
    Entry(
        "mismatch correction",
        ("correction_weight", "correction_masked"),
        "The mean importance weight of the trained tokens, and the share of them whose weight is 0.",
        "Weight near 1, masked below 1 %.",
        "Much masked: the gap is too large to correct; find its cause.",
    ),
    Entry(
        "alarms",
        (
            "alarm",
            "entropy_collapse",
            "one_token_repetition",
            "length_collapse",
            "reward_hacking",
            "all_zero_rewards",
            "format_up_accuracy_down",
            "no_useful_group",
            *("entropy_start", "response_tokens_start", "format_start", "accuracy_rise", "accuracy_best"),
            *("reward_rise", "pass@1_fall", "pass@1_best", "fired_at", "back_to", "lr_factor"),
        ),
        "Rows of kind alarm: what fired, after which step, and what was done (warn, pause, rollback), with the "
        "numbers that the message names: a metric as it is, in the first steps (_start), at its best (_best), and its "
        "change. Of a rollback the step at which it fired, the one gone back to, and the factor of the learning rate "
        "since.",
        "None.",
        "Each message says what to look at; docs/alarms.md has the conditions.",
    ),
    Entry(
        "critic",
        ("value_explained", "value_loss", "value_error", "value_clip", "value_grad_norm"),
        "With a critic (PPO): value_explained is the share of the returns' variance that its values explain, "
        "value_error their mean squared error, value_clip the share of tokens whose value was held back.",
        "value_explained rises well above 0 and stays; it is 0 at the start, when all values are 0.",
        "At or below 0 for long: a higher critic.lr_factor, more critic.minibatches, or critic.pretrain_steps "
        "before the policy moves. value_clip above 20 %: raise critic.clip.",
    ),
    Entry(
        "process reward",
        ("process_loss", "process_accuracy", "process_grad_norm"),
        "With process rewards (PRIME): the cross-entropy of outcomes under the process reward model, and the "
        "share of responses whose outcome it tells from its summed token rewards.",
        "process_loss starts at 0.69 (it knows nothing) and falls; process_accuracy rises above the share of "
        "the more frequent outcome.",
        "Stays at 0.69: a higher process.lr_factor. Falls while accuracy falls too: the policy exploits it; "
        "lower process.coef.",
    ),
    Entry(
        "entropy coefficient",
        ("entropy_coef",),
        "The weight of the entropy bonus that acted in the step, where it adapts to a target.",
        "0 while entropy is above the target; small while it acts.",
        "At its maximum for long: the target is too high for this task, or sampling too cold.",
    ),
    Entry(
        "loss",
        ("loss",),
        "In pre-training and supervised fine-tuning the mean negative log-likelihood of the learned tokens, in nats. "
        "In RL the surrogate objective, whose height means nothing: read reward and accuracy instead.",
        "Pre-training: falls steeply, then slowly. Fine-tuning: falls a step at the start of every epoch.",
        "It goes up or is not a number: lower the learning rate, check grad_clip.",
    ),
    Entry(
        "token accuracy",
        ("token_accuracy",),
        "In supervised fine-tuning the share of learned tokens that the model ranks first, given those before them.",
        "Rises with every epoch.",
        "Rises while held-out accuracy stands still: fewer epochs, or more data.",
    ),
    Entry(
        "held-out loss",
        ("held_out_loss", "held_out_accuracy"),
        "Loss and token accuracy on the prompts kept out of supervised training, at the end of each epoch.",
        "The loss falls, then flattens.",
        "Rises while the training loss falls: the data are learned by heart. Train fewer epochs, or let select: loss "
        "take the best one.",
    ),
    Entry(
        "pair margin",
        ("pair_margin", "pair_accuracy", "chosen_reward", "rejected_reward", "wanted_reward", "unwanted_reward", "nll"),
        "In preference training the reward of a response is beta times its log-ratio to the reference (without one, "
        "its mean log-prob): the mean of both sides, their difference, and the share of pairs in which the chosen "
        "response has the higher one. nll is the next-token loss of the chosen responses. With held_out_ in front: of "
        "prompts kept out of training.",
        "Margin and accuracy rise, on held-out pairs too; the chosen reward stays near or above 0.",
        "Both rewards sink and only their difference grows: raise beta, set nll_coef, or use nca. Training accuracy "
        "far above held-out: fewer epochs, or more pairs.",
    ),
    Entry(
        "response log-probs",
        (
            *("chosen_logprob", "rejected_logprob", "wanted_logprob", "unwanted_logprob"),
            *("chosen_tokens", "rejected_tokens", "wanted_tokens", "unwanted_tokens"),
        ),
        "In preference training the mean log-prob of a whole response in nats, and its mean number of tokens.",
        "The rejected one falls; the lengths of both sides are alike.",
        "Chosen responses are much longer than rejected ones: length is what is learned. Balance the pairs.",
    ),
    Entry(
        "judged right",
        ("judged_right", "chosen_score", "rejected_score", "good_score", "bad_score"),
        "In reward-model training the share of pairs, labels or steps on whose side the score is, and the mean scores. "
        "With held_out_accuracy, held_out_ece (calibration error), held_out_log_loss, held_out_brier and held_out_auc "
        "the report on what was held out.",
        "held_out_accuracy well above held_out_longer_is_better; a calibration error below 0.1.",
        "Only as good as length: balance_lengths. Sure and wrong (a high calibration error): fewer epochs.",
    ),
    Entry(
        "epoch",
        ("epoch",),
        "The pass over the data in which a step of supervised fine-tuning lies, from 1.",
        "As the recipe says.",
        "Nothing to do; it is shown so that jumps of the loss can be matched with it.",
    ),
    Entry(
        "kept answers",
        (
            *("kept_share", "kept", "answers", "rejected", "unfinished", "not_judged", "unfit", "duplicate", "surplus"),
            *("difficulty", "unpaired", "pairs", "unsolved"),
        ),
        "In a generate stage the answers sampled and kept in a wave, and those that were not by their first reason: a "
        "required verdict below full marks, cut at the cap, could not be judged, empty or in a thought that never "
        "ends, the same text twice, more than per_problem, of a problem outside pass_rate, without another answer that "
        "makes a pair with it. pairs counts pairs of two kept answers, unsolved problems without a kept answer.",
        "Most problems keep an answer; not_judged is 0.",
        "Many unfinished: raise sampling.max_tokens. Many unsolved: more samples, or a better teacher. not_judged "
        "above 0: look at the run's log for the verifier's or the engine's error.",
    ),
    Entry(
        "learning rate",
        ("lr",),
        "The step size after warm-up and decay.",
        "As the recipe says.",
        "Nothing to do; it is shown so that jumps elsewhere can be matched with it.",
    ),
    Entry(
        "phase",
        ("phase",),
        "The phase of the stage's schedule, from 1; missing without a schedule. What the phase ramps is beside it "
        "under the setting's own name, such as sampling.max_tokens.",
        "As the recipe says; run.log has the step and the reason of each change.",
        "Never changes: a hand-over rule is out of reach; give it a step as well.",
    ),
    Entry(
        "tokens",
        ("tokens_sampled", "tokens_trained", "tokens_masked", "tokens_discarded", "tokens_filtered"),
        "Response tokens sampled, and what became of them. Trained: by the policy, or by the critic alone. Masked: "
        "their response was cut at the cap (dynamic_sampling.truncated: mask); its reward was compared, its tokens "
        "were not trained. Discarded: with groups that taught nothing, failed, grew stale or were left over at the "
        "end, and responses that algorithm.group_filter left out (tokens_filtered of them).",
        "Discarded and masked well below half of sampled.",
        "Mostly discarded: see useful groups. Mostly masked: raise the cap.",
    ),
    Entry(
        "groups",
        ("groups_sampled", "groups_trained", "groups_failed", "groups_stale", "carried", "carried_in", "waited"),
        "Groups sampled and trained; failed ones could not be sampled or judged and are never trained. Useful groups "
        "beyond the batch are carried on to the next step (carried, there carried_in); stale ones were older than "
        "dynamic_sampling.max_age and dropped. waited is 1 where a step lacked useful groups and kept what it had "
        "(when_short: wait).",
        "No group failed; few carried.",
        "Failed: look at run.log; a verifier or the engine failed. Stale: raise max_age, or sample less ahead. Waited: "
        "see useful groups.",
    ),
    Entry(
        "padding",
        ("padding",),
        "The share of the trainer's tokens that were padding.",
        "A few per cent.",
        "More: raise token_budget.",
    ),
    Entry(
        "step time",
        (
            *("step_s", "sample_s", "reward_s", "train_s", "sync_s"),
            *("tokens_per_s", "sample_tokens_per_s", "train_tokens_per_s", "wall"),
        ),
        "Under clock, in seconds: the whole step and each part of it. Response tokens per second: sampled, over the "
        "whole step and over sampling alone; trained, over training alone. wall is the Unix time at which the row was "
        "written.",
        "Sampling and training share the step; judging and weight sync are slivers.",
        "Judging is large: its verifier is slow. Speed drops suddenly: something else uses the machine.",
    ),
    Entry(
        "log-prob",
        ("logprob",),
        "The natural logarithm of the probability with which a token was sampled. In the token strip, "
        "colour is surprise: pale tokens were certain, strong ones were choices.",
        "Strong colour where an attempt begins (a real choice), pale inside arithmetic and verdicts.",
        "Strong colour inside arithmetic: the model has not learned its facts.",
    ),
    Entry(
        "advantage",
        ("advantage",),
        "The reward of a response minus the mean reward of its group: the sign says whether the step made "
        "the response more likely or less. Divided by the group's spread where the recipe says advantage: "
        "std.",
        "Mixed signs within a group.",
        "All zero: the group taught nothing; see useful groups.",
    ),
)

_BY_KEY = {key: entry for entry in GLOSSARY for key in entry.keys}
# What the names of a family begin with, and a name of its entry: every pass@k beyond 1, parts of a reward, and what a
# schedule ramps.
_FAMILIES = (
    ("pass@", "pass@k"),
    ("reward_", "reward_accuracy"),
    ("monitored_", "reward_accuracy"),
    *((setting, "phase") for setting in SCHEDULED),
)


def entry_of(key: str) -> Entry | None:
    """The entry that explains metric `key`, if there is one; names made of others go by what they begin with."""
    if (found := _BY_KEY.get(key)) is not None:
        return found
    return next((_BY_KEY[known] for begin, known in _FAMILIES if key.startswith(begin)), None)
