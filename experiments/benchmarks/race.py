"""The parent's side of the subprocess protocol: workers with a deadline, and runs in turns."""

from __future__ import annotations

import json
import os
import queue
import resource
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class WorkerError(Exception):
    """A worker did not answer; its text is what the table prints."""


def child_environment() -> dict[str, str]:
    """The variables of this process, with this folder and the package where Python looks."""
    paths = [str(HERE), os.environ.get("PYTHONPATH", ""), str(HERE.parents[1])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        cap: seconds that one run, and the preparation before it, may take.
        budget: seconds that the runs of one setting after the first, which may compile, take
            together; no run starts after that.
        threads: cores that it is pinned to and threads of its libraries.
        memory: GiB of address space, or None.
        fewest: runs that the budget never prevents; 2 where the first one compiles.
    """

    cap: float
    budget: float
    threads: int
    memory: float | None = None
    fewest: int = 1


@dataclass
class Worker:
    """One tool at one setting in a process of its own, see `worker.py`.

    Attributes:
        tool: name of the tool.
        setting: its settings; "label" names them, "environment" has variables of the process.
        command: interpreter and script.
        problem: the input .npz.
        output: where the solutions go.
        limits: time, cores and memory.
        runs: the answers to the runs so far.
        status: "ok", or why there are no further runs.
        facts: the answer to the preparation (versions).
    """

    tool: str
    setting: dict[str, Any]
    command: list[str]
    problem: Path
    output: Path
    limits: Limits
    runs: list[dict[str, Any]] = field(default_factory=list)
    status: str = "ok"
    facts: dict[str, Any] = field(default_factory=dict)
    saved: bool = False
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and wait until it has prepared."""
        limits = self.limits
        environment = child_environment()
        environment["JAX_TRACEBACK_FILTERING"] = "off"  # or the last line is JAX's own
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON"):
            environment[f"{name}_NUM_THREADS"] = str(limits.threads)
        if "blas_threads" in self.setting:
            environment["OPENBLAS_NUM_THREADS"] = str(self.setting["blas_threads"])
        environment |= self.setting.get("environment", {})

        def restrict() -> None:
            if hasattr(os, "sched_setaffinity"):
                cores = sorted(os.sched_getaffinity(0))[: limits.threads]
                os.sched_setaffinity(0, cores)
            if limits.memory is not None:
                space = int(limits.memory * 2**30)
                resource.setrlimit(resource.RLIMIT_AS, (space, space))

        self._log = self.output.with_suffix(".log").open("w+")
        self._process = subprocess.Popen(
            [*self.command, str(self.problem), json.dumps(self.setting), str(self.output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            preexec_fn=restrict,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._guard(lambda: self.facts.update(self._answer()))

    def run(self) -> None:
        """Solve once; on failure the status says why and the process ends."""

        def once() -> None:
            self._tell("run")
            self.runs.append(self._answer())

        self._guard(once)

    def save(self) -> None:
        """Write the last solution to `output`."""

        def once() -> None:
            self._tell("save")
            self.saved = bool(self._answer()["saved"])

        if self.runs and self.status == "ok":
            self._guard(once)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._log.close()

    @property
    def tired(self) -> bool:
        """Whether it failed or its runs have used up the budget."""
        spent = sum(run["seconds"] for run in self.runs[1:])
        enough = len(self.runs) >= self.limits.fewest and spent >= self.limits.budget
        return self.status != "ok" or enough

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except WorkerError as error:
            self.status = str(error)
            self._process.kill()

    def _tell(self, command: str) -> None:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._last_words()) from error

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self.limits.cap)
        except queue.Empty as error:
            raise WorkerError(f"over {self.limits.cap:g} s") from error
        if not line:
            raise WorkerError(self._last_words())
        return dict(json.loads(line))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _last_words(self) -> str:
        """The last line that the process wrote to standard error: as a rule an exception."""
        self._process.wait()
        self._log.flush()
        self._log.seek(0)
        words = [line.strip() for line in self._log if line.strip()]
        if any("MemoryError" in line or "bad_alloc" in line for line in words[-5:]):
            return "out of memory"
        return f"failed: {words[-1][:160]}" if words else f"ended ({self._process.returncode})"


def in_turns(workers: list[Worker], repeats: int, below: Sequence[Worker] = ()) -> None:
    """Run all workers side by side, each once a round, and end them.

    The first round is the first call (compilation included), after which the solutions are saved;
    `repeats` rounds follow. A worker that has spent its budget drops out and keeps what it has. A
    rung above one (among these workers, or those of `below`) that ran over the cap is not tried.
    """
    try:
        for place, worker in enumerate(workers):
            if any(_above(worker, rung) for rung in (*below, *workers[:place])):
                worker.status = "not tried: a looser rung ran over the cap"
                continue
            worker.start()
            if worker.status == "ok":
                worker.run()
                worker.save()
        for _ in range(repeats):
            for worker in workers:
                if not worker.tired:
                    worker.run()
    finally:
        for worker in workers:
            worker.close()


def _above(worker: Worker, rung: Worker) -> bool:
    """Whether a worker climbs on from a rung that ran over the cap."""
    same = worker.tool == rung.tool and worker.tool != "jaxrelu"
    lam = worker.setting.get("lam_index") == rung.setting.get("lam_index")
    return same and lam and rung.status.startswith(("over", "not tried"))
