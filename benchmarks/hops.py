"""Follow one order with one instance through the program: python benchmarks/hops.py [--functions].

Counts the modules that are entered and the moves from one module to another, from the event until
the node has the instance and ITH knows. The fewer, the sooner a reader has followed the same way. A
coroutine that goes on after a wait is no move: a reader is in it already. The interpreter sees it
enter every function of its chain of awaits again; the count with these is printed beside.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import trio

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.program import configure, offer, running_program, some_nodes  # noqa: E402

from proxy.demo import frames  # noqa: E402 - of this checkout, which is no package
from proxy.demo.backend import DemoBackend  # noqa: E402

SOURCE = f"{ROOT / 'src/proxy'}/"
BESIDE_THE_WAY = ("demo/", "logs/", "errors.py", "settings/", "runtime/marks.py")
"""As a line of the log, a mark is a note beside the way: in the program it does nothing."""
SUSPENDS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
MAX_MODULES, MAX_MOVES = 40, 500


class Follower:
    """Counts calls of the program's own functions while ``is_on``."""

    def __init__(self) -> None:
        self.is_on = False
        self.calls: Counter[str] = Counter()
        self.modules: Counter[str] = Counter()
        self.moves: Counter[tuple[str, str]] = Counter()
        self.moves_with_resumed = 0
        self._last = self._last_entered = ""
        self._coroutines: set[FrameType] = set()

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Count a call; the interpreter calls this."""
        path = frame.f_code.co_filename
        if not self.is_on or event != "call" or not path.startswith(SOURCE):
            return
        module = path.removeprefix(SOURCE)
        if module.startswith(BESIDE_THE_WAY) or frame.f_code.co_name.startswith("<"):
            return
        self.moves_with_resumed += bool(self._last_entered) and self._last_entered != module
        self._last_entered = module
        if frame.f_code.co_flags & SUSPENDS:
            if frame in self._coroutines:
                return
            self._coroutines.add(frame)
        self.calls[f"{module}:{frame.f_code.co_qualname}"] += 1
        self.modules[module] += 1
        if self._last and self._last != module:
            self.moves[self._last, module] += 1
        self._last = module


async def follow(follower: Follower) -> None:
    """Have one session of one slice sent to one node."""
    with tempfile.TemporaryDirectory() as directory:
        async with DemoBackend().running() as backend, some_nodes("a") as (node,):
            configure(backend, [node])
            offer(backend, slices=1)
            async with running_program(Path(directory), backend) as program:
                await program.configured()
                await program.online()
                await trio.sleep(0.2)
                follower.is_on = True
                await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])))
                follower.is_on = False
                await program.idle()


def main() -> int:
    """Print the counts; return 1 where they are over the limits."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--functions", action="store_true", help="name every function entered")
    given = options.parse_args()
    follower = Follower()
    sys.setprofile(follower.profile)
    trio.run(follow, follower)
    sys.setprofile(None)
    moves = follower.moves.total()
    print(f"modules entered            {len(follower.modules):5} (at most {MAX_MODULES})")
    print(f"moves between modules      {moves:5} (at most {MAX_MOVES})")
    print(f"… with resumed coroutines  {follower.moves_with_resumed:5}")
    print(f"functions entered          {len(follower.calls):5}")
    print(f"calls                      {follower.calls.total():5}")
    if given.functions:
        for name, count in follower.calls.items():
            print(f"{count:5} {name}")
    else:
        print("\nThe most frequent moves:")
        for (one, other), count in follower.moves.most_common(25):
            print(f"{count:5} {one} → {other}")
    return int(len(follower.modules) > MAX_MODULES or moves > MAX_MOVES)


if __name__ == "__main__":
    raise SystemExit(main())
