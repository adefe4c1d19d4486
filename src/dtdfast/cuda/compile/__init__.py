"""Kernels to machine code, without a GPU: specialised, translated, assembled, kept on disk."""
