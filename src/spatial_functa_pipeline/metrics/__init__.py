"""PSNR and the Fréchet distance."""
