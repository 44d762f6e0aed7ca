"""Judges as live rewards (d-RLAIF, Lee et al. 2023, 2309.00267, §2.2.2): what a policy writes is judged at once.

session   `judges(context, name)`: the judges of train.NAME, over engines that stay up while it trains
groups    what was written, as prompts, responses and the tasks of a judge
scores    judgments → one number for each completion, or why there is none
record    what was judged, in live/NAME/ of the run folder
checks    what can be known before anything is paid; how much will be asked

Training is handed plain callables (`rlaif.training.rewards.JudgeReward`) and knows nothing of judges.
"""
