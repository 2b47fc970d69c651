"""What is measured and drawn at the end, as a library: reconstructions, classes, samples, scores, figures."""
