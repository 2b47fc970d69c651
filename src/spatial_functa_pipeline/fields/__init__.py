"""The method: coordinates, interpolation, SIREN, λ and the inner loop. Imports torch (and einops) alone."""
