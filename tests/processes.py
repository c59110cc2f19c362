"""Waiting for processes that a test started."""


def finished(processes, *, timeout):
    """Waits; returns (exit code, standard output, standard error) of each.

    None is left, and no pipe of theirs, if one takes too long.
    """
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [(p.returncode, *text) for p, text in zip(processes, texts, strict=True)]
