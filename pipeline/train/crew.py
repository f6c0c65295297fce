"""The processes of one training under ``torchrun``: the first one leads, the others follow.

The leader alone has a lease, a ledger, checkpoints, a log and alarms; it goes through the stage and its loop as a
training in one process does. Before every step it gives an order that all processes take together. Followers hold the
same networks, draw the same numbers, and do what they are told: build, take over a state, make a step.

    order        what follows it
    ASSIGNED     the assignment, as JSON: followers build what the leader built
    RESTORED     a checkpoint: followers take it over, so that their number may differ from that of an earlier run
    STEP         one step of all ranks, see `models.ranks`
    FINISHED     nothing: the training is over
    DISMISSED    nothing: there is nothing more to do
"""

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from models.losses import NonFiniteLossError
from models.ranks import ALONE, RankLostError, Ranks
from pipeline.checkpoints import Checkpoint
from pipeline.device import choose_device, turn_on
from pipeline.device_turn import device_turn
from pipeline.errors import ResourceError, SettingsError, TrainingError
from pipeline.records import silent
from pipeline.settings import DeviceChoice
from pipeline.train.assignment import Assignment
from pipeline.train.stopping import stop_requests
from pipeline.train.trainee import Trainee
from pipeline.train.training_state import restore

ASSIGNED, RESTORED, STEP, FINISHED, DISMISSED = range(1, 6)
_PATIENCE = timedelta(days=7)
"""How long followers wait for the leader, which may have scans to read first; a process that ends is seen at once."""


class Order(NamedTuple):
    """What the leader tells the followers.

    Attributes:
        kind: see the module.
        rate_factor: of the learning rates.
        done: share of the training that lies behind.
        batch_size: images of the step, over all ranks.
    """

    kind: int
    rate_factor: float = 0.0
    done: float = 0.0
    batch_size: int = 0


class Crew:
    """The processes of a training, seen from one of them; of a training in one process, nothing is exchanged.

    Args:
        ranks: the processes.
        device: of this one; None for that of the settings.

    Attributes:
        stop_asked: whether a follower was told to stop.
    """

    def __init__(self, ranks: Ranks = ALONE, device: torch.device | None = None) -> None:
        self.ranks, self.device, self.stop_asked = ranks, device, False
        self._amid_step = False

    @property
    def leads(self) -> bool:
        """Whether this process leads."""
        return self.ranks.index == 0

    @property
    def shared(self) -> bool:
        """Whether there are followers."""
        return self.ranks.count > 1

    def require_share(self, batch_size: int) -> None:
        """Check that a batch can be shared out evenly.

        Raises:
            SettingsError: it cannot.
        """
        if batch_size % self.ranks.count:
            raise SettingsError(
                "A batch must be a multiple of the processes that share it.",
                found=f"batch_size {batch_size} with {self.ranks.count} processes",
                allowed=f"multiples of {self.ranks.count}",
                change="Set batch_size to one of these, or start another number of processes.",
            )

    def assign(self, assignment: Assignment) -> None:
        """Let followers build what the leader has built."""
        if self.shared:
            self._give(Order(ASSIGNED))
            self._send(assignment.model_dump_json().encode())

    def restored(self, found: Checkpoint) -> None:
        """Let followers take over a checkpoint."""
        if self.shared:
            self._give(Order(RESTORED))
            self._send(json.dumps(found.state).encode())
            self._send(save({name: tensor.contiguous() for name, tensor in found.tensors.items()}))

    @contextmanager
    def step(self, rate_factor: float, done: float, batch_size: int) -> Iterator[None]:
        """Let followers make the step of the block with the leader."""
        if not self.shared:
            yield
            return
        self.require_share(batch_size)
        self._give(Order(STEP, rate_factor, done, batch_size))
        self._amid_step = True
        try:
            yield
        except NonFiniteLossError:  # all ranks find it
            self._amid_step = False
            raise
        self._amid_step = False

    def finish(self) -> None:
        """Let followers leave the training."""
        if self.shared:
            self._give(Order(FINISHED))

    def dismiss(self) -> None:
        """Let followers end; within a step they cannot listen, and end with the leader's connection."""
        if self.shared and not self._amid_step:
            self._give(Order(DISMISSED))

    def next_order(self, stopping: bool) -> Order:
        """A follower's next order; ``stopping`` asks the leader to stop."""
        kind, factor, done, size = self._exchange((0.0, 0.0, 0.0, 0.0, float(stopping)))[:4]
        return Order(int(kind), factor, done, int(size))

    def assigned(self) -> Assignment:
        """What a follower has to build."""
        return Assignment.model_validate_json(self._receive())

    def checkpoint(self) -> Checkpoint:
        """What a follower has to take over."""
        state = json.loads(self._receive())
        return Checkpoint(load(self._receive()), state)

    def _give(self, order: Order) -> None:
        self.stop_asked |= self._exchange((*order, 0.0))[4] > 0

    def _exchange(self, values: tuple[float, ...]) -> list[float]:
        """Sums of what all ranks give: the leader its order and zeros for the rest, followers the reverse."""
        sums: list[float] = self.ranks.total_of(torch.tensor(values, dtype=torch.float64)).tolist()
        return sums

    def _send(self, content: bytes) -> None:
        self.ranks.from_first(torch.tensor([len(content)]))
        self.ranks.from_first(torch.frombuffer(bytearray(content), dtype=torch.uint8))

    def _receive(self) -> bytes:
        size = int(self.ranks.from_first(torch.zeros(1, dtype=torch.int64)))
        return self.ranks.from_first(torch.zeros(size, dtype=torch.uint8)).numpy().tobytes()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in the block what it means that another process is gone.

        Raises:
            TrainingError: it is gone.
        """
        try:
            yield
        except RankLostError as error:
            self._amid_step = True  # nobody listens any more
            # torchrun tells the rest to stop when one process is gone; what is known here says more than that signal.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise TrainingError(
                "All processes of a training must live to its end.",
                found=f"process {self.ranks.index} of {self.ranks.count} lost another one, which ended early",
                allowed="processes that end together",
                change="See what the other process said last; then run the same command again: it goes on from the "
                "last checkpoint, with any number of processes that shares the batch.",
            ) from error


NO_CREW = Crew()
"""A training in one process."""


@contextmanager
def joined(choice: DeviceChoice) -> Iterator[Crew]:
    """The crew that ``torchrun`` started, for the time of the block.

    Raises:
        ResourceError: lightning-fabric is missing, or there are fewer devices than processes.
        TrainingError: another process is gone.
    """
    crew = _launched(choose_device(choice).type)
    try:
        with crew.together():
            try:
                yield crew
            finally:
                if crew.leads:
                    crew.dismiss()
    finally:
        dist.destroy_process_group()


def _launched(kind: str) -> Crew:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise ResourceError(
            "Training in several processes needs lightning-fabric.",
            found="no such package",
            allowed="the extra `ddp`",
            change="Install it: pip install 'scanloom[ddp]'.",
        ) from None
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if kind == "mps" or (kind == "cuda" and torch.cuda.device_count() < here):
        raise ResourceError(
            "Every process of a training needs a device of its own.",
            found=f"{here} processes and {torch.cuda.device_count()} CUDA devices (device: {kind})",
            allowed="as many processes as CUDA devices, or device: cpu",
            change="Set --nproc-per-node to the number of devices.",
        )
    if here == everywhere and os.uname().sysname == "Linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing needs to leave this machine
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    strategy = DDPStrategy(process_group_backend=backend, timeout=_PATIENCE)
    fabric = Fabric(accelerator=kind, devices=here, num_nodes=everywhere // here, strategy=strategy)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric.launch()
    return Crew(Ranks(dist.group.WORLD), fabric.device)


def follow(crew: Crew) -> None:
    """Do what the leader says, until it has nothing more to do. A request to stop is handed to the leader.

    Raises:
        TrainingError: the leader, or another follower, is gone.
        ResourceError: a step does not fit into the memory of this process's device.
    """
    with stop_requests() as asked, ExitStack() as held:
        trainee: Trainee | None = None
        while (order := crew.next_order(asked.number is not None)).kind != DISMISSED:
            if order.kind == ASSIGNED:
                assignment = crew.assigned()
                device = crew.device or torch.device(assignment.device)
                held.enter_context(device_turn(turn_on(device, assignment.device_turns), silent))
                trainee = assignment.build(device, crew.ranks)
            elif order.kind == FINISHED:
                trainee = None
                held.close()
            elif trainee is not None:
                _obey(order, crew, trainee)


def _obey(order: Order, crew: Crew, trainee: Trainee) -> None:
    if order.kind == RESTORED:
        restore(trainee, crew.checkpoint())
        return
    trainee.learning_rate_factor(order.done)
    trainee.step.set_learning_rate_factor(order.rate_factor)
    trainee.batch_size = order.batch_size
    try:
        trainee.train_batch()
    except NonFiniteLossError:  # the leader finds it too, and decides
        return
