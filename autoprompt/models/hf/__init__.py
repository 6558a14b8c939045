"""Hugging Face models: masked, causal and encoder-decoder.

Nothing here is imported until such a model is loaded.
"""
