"""One round over several worker processes, through joblib.

The batches are cut before they are handed out, so the number of workers changes how long a round takes and
not what is asked of the model. joblib's own context manager chooses where the workers live: loky processes
here by default, or ``with joblib.parallel_config("dask"):`` / ``"ray"`` around the call.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Generator, Sequence

from autoprompt.errors import InputError, ModelError
from autoprompt.models import Model, Reply, Request, StreamingModel, answer
from autoprompt.models.load import load_model


def answer_batches(
    model: Model, source: object, batches: Sequence[Sequence[Request]], workers: int
) -> Generator[list[Reply], None, None]:
    """Yield the replies of each batch, in order.

    Args:
        model: the model in this process.
        source: what the user gave as the model; workers load their own from it, so for ``workers > 1`` it
            must be a text.
        batches: the requests, batch by batch.
        workers: number of processes; 1 stays in this one.
    """
    if workers == 1 or len(batches) < 2:
        if isinstance(model, StreamingModel):
            yield from model.stream(batches)
            return
        for batch in batches:
            yield answer(model, batch)
        return
    if not isinstance(source, str):
        raise InputError(
            f"workers: {workers} workers each load the model by its name, but it was given as an object",
            hint="give the model as a text (an id or a folder), or use workers=1",
        )
    import joblib

    threads = max(1, (os.cpu_count() or 1) // workers)
    job = functools.partial(joblib.delayed(_answer_there), source, model.fingerprint, threads)
    wanted = True
    jobs = (job(batch) for batch in itertools.takewhile(lambda _: wanted, batches))
    answers = joblib.Parallel(n_jobs=workers, return_as="generator")(jobs)
    try:
        for replies in answers:  # noqa: UP028 - "yield from" would close it, and joblib then kills the processes
            yield replies
    finally:
        # Where the rest is not wanted any more, the few batches that are at work end; the processes keep their models.
        wanted = False
        with contextlib.suppress(Exception):
            for _ in answers:
                pass


def _answer_there(source: str, fingerprint: str, threads: int, batch: Sequence[Request]) -> list[Reply]:
    """Answer one batch in a worker process."""
    return answer(_model_there(source, fingerprint, threads), batch)


@functools.lru_cache(maxsize=1)
def _model_there(source: str, fingerprint: str, threads: int) -> Model:
    """The worker's own model. Workers outlive a call: where its files have changed since, they load it again."""
    # The number of threads is torch's business; the environment variable reaches it before it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    model = load_model(source)
    if model.fingerprint != fingerprint:
        raise ModelError(
            f"model {source!r}: a worker process loaded another model than this one under the same name",
            hint="load it again if its files have just changed, give its whole path, or use workers=1",
        )
    return model
