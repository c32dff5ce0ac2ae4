"""How good is it: tasks, scores, intervals."""
