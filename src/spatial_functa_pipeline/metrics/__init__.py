"""PSNR; Fréchet and kernel distance, precision and recall; memorisation."""
