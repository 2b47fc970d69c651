"""Comparisons: the runs of a study, which of them may go on side by side, and the table and figure that they end in."""
