"""Guards against reward hacking: a policy is probed while it trains, stopped where it goes wrong, and its best kept.

monitors   figures of responses: length, repetition, distinct-n, refusals, ended ones, KL
decision   from the probes so far to: go on or stop, why, and which probe is the best
sampling   responses and log-probabilities of the model in training, which leave no trace in it
store      weights and figures on disk, through kills and resumes
watch      the guard: what `fitting.train` holds, and its callback
"""
