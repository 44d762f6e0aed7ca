"""From judgments of every kind to comparisons. `rlaif.stages.pair` is the stage.

votes        judgments → what each says of two responses
scores       pointwise judgments → the same, from two distributions
orders       order policies, and one member's opinion of a pair
panels       members of a panel → one comparison
standards    weights, scales and hard criteria, from rubrics and constitutions
"""
