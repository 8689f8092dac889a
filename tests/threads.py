"""What several threads do at once."""

import threading


def at_once(work, number: int) -> None:
    """Calls work() in so many threads and waits for all."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
