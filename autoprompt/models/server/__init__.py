"""Models behind a server that speaks OpenAI's protocol (vLLM, llama.cpp, Ollama, commercial): ``openai:NAME@URL``.

``names`` reads the spec, ``wire`` carries requests (threads, time limits, retries), ``dialect`` writes them,
``answers`` and ``spelling`` read what comes back, ``probing`` finds out once what the server can do, ``model`` is the
model. Nothing is decided by the name of a product, and nothing here needs more than Python's own library.
"""
