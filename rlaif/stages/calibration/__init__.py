"""Judges against people: what gold holds, what each judge makes of it, the figures, the choice, the rounds.

gold         what people say: pairs (also those that scores imply) with one label each, and their raters
views        a judge's judgments of gold, aggregated exactly as labels are (stages.pair)
figures      the figures of one judge, over all of gold or over a slice of it
fitting      maps fitted on one split and tested on the other
outputs      the files of calibration/, one function each
cascades     thresholds with a promise, for a cascade of the judges
choice       judges × order policies, accuracy against cost, and which to choose
rounds       what changed since the rubric or the judge was another
text         calibration.json for a terminal
applying     a fitted map on the labels of a run (stages.pair)
correcting   win rates corrected by how often a judge is wrong on gold
"""
