"""Kernels: what a GPU runs, written in the words of compile/language.py."""
