"""Parts of the search in which a model writes texts: what it is asked, how its answer is read, what is refused."""
