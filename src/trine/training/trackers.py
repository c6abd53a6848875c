"""Where the numbers of a run go: a file, TensorBoard, a progress bar. Anything with `log` and `close` is a tracker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from trine.tables import missing_extra


class Tracker(Protocol):
    """Takes the numbers of a run as they come."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values after `step`; a step may come again with other names, and a resumed run repeats steps."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


class JsonlTracker:
    """One line of JSON a step: ``{"step": 10, "loss": 2.3, ...}``.

    A run that is resumed goes over some steps again: their lines are replaced. So is a line that a kill left half
    written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line and hand it to the system, so that a kill loses none."""
        if self._file is None:
            self._file = self._opened(step)
        # NaN and infinity are no JSON; they are what the log is read for, so they stay, as words.
        kept = {name: value if abs(value) < float("inf") else str(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **kept}, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self, step: int) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").split("\n")
            kept = "".join(f"{line}\n" for line in lines if (number := _step(line)) is not None and number < step)
            beside = self.path.with_name(f".{self.path.name}.new")
            beside.write_text(kept, encoding="utf-8")
            os.replace(beside, self.path)
        return self.path.open("a", encoding="utf-8")


class TensorBoardTracker:
    """Scalars for TensorBoard (package extra "training")."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("the TensorBoard tracker", "training") from error
        self._make: Any = SummaryWriter
        self._folder = Path(folder)
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar a name."""
        if self._writer is None:
            # What a killed run wrote after its last checkpoint disappears from the curves.
            self._writer = self._make(log_dir=str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class ProgressTracker:
    """A bar on standard error with the loss, tokens a second and the time left; silent where that is no terminal."""

    def __init__(self, steps: int, *, what: str = "training") -> None:
        self.steps = steps
        self.what = what
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        if self._progress is None:
            self._start(step)
        numbers = []
        if "loss" in values:
            numbers.append(f"loss {values['loss']:.4g}")
        if values.get("tokens_per_second"):
            numbers.append(f"{values['tokens_per_second']:,.0f} tokens/s")
        changes = {"numbers": "  ".join(numbers)} if numbers else {}
        self._progress.update(self._task, completed=step, **changes)

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _start(self, step: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._progress = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        # The time left comes from the steps of this process, not from those before it was resumed.
        self._task = self._progress.add_task(self.what, total=self.steps, completed=step, numbers="")
        self._progress.start()


def _step(line: str) -> int | None:
    try:
        content = json.loads(line)
        return int(content["step"])
    except (ValueError, KeyError, TypeError):
        return None
