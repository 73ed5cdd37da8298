"""What ends a wait in `poll`."""

from __future__ import annotations

import select
import threading

from stem_actors.adapters.interrupt import Interrupt

LONG_MS = 10_000


def wait(interrupt: Interrupt, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(interrupt, select.POLLIN)
    return bool(poll.poll(milliseconds))


def test_it_ends_the_wait_under_way_and_the_next_one_until_it_is_taken() -> None:
    interrupt = Interrupt()
    thread = threading.Thread(target=interrupt.send)
    thread.start()
    assert wait(interrupt, LONG_MS)
    thread.join()
    assert wait(interrupt, 0)
    assert interrupt.take()
    assert not interrupt.take()
    assert not wait(interrupt, 0)
    interrupt.close()


def test_any_number_of_interrupts_is_one_and_none_blocks() -> None:
    interrupt = Interrupt()
    for _ in range(100_000):  # more than a pipe holds
        interrupt.send()
    while interrupt.take():
        pass
    assert not wait(interrupt, 0)
    interrupt.close()


def test_once_closed_it_touches_no_file_that_got_its_number() -> None:
    interrupt = Interrupt()
    interrupt.close()
    interrupt.close()
    another = Interrupt()  # has the numbers now
    interrupt.send()
    assert not another.take()
    another.send()
    assert not interrupt.take()
    assert another.take()
    another.close()
