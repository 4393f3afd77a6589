"""How good synthetic images are, and classifiers that learned from them: the README's table and that of what helps."""
