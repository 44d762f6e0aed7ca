"""Can the labels be trusted? What a run's own tables say, gates on it, and an attack on the judge.

names      the figures: what each is called and what it says
material   the tables as verdicts and pairs             families   which family a model belongs to
bias       position, length, own family                 verdicts   failures, ties, label mass, agreement
texts      duplicates, openings, texts that address the judge
gates      bounds on figures
attacks    the attack set    injection   shows it to the judge    readers   scripted judges that obey it
success    how often an attack turns a verdict
run        the stage
"""
