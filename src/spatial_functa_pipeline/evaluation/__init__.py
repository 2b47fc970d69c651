"""What is measured and drawn at the end, as a library: reconstructions, samples, scores, memorisation, figures."""
