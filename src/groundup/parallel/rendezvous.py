"""Where ranks that somebody else has started meet: a store that those of this very start share, and no others.

in:  this process's place among them
out: a store of keys and values, the same for all; an error that names who hasn't come

torchrun's agent keeps one store over all its starts, in which ranks would find the addresses of the dead. So every
rank comes under a new name, rank 0 tells it under which word this start meets, and the rank says that it heard.
"""

import os
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from groundup.core.errors import GroundupError

MAX_NAMED_RANKS = 8
"""Missing ranks named in a message."""


class RendezvousError(GroundupError):
    """Ranks that were to meet didn't."""


@dataclass(frozen=True)
class RankAddress:
    """Which of the cluster's ranks this process is, and where they meet."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    address: str
    port: int


def rendezvous(place: RankAddress, timeout: float) -> tuple[Store, str]:
    """The store of this start, and the word in front of its keys. Raises NotMetError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    serves = place.rank == 0 and not _agent_owns_store()
    try:
        if not serves:
            _wait_for_server(place, deadline)
        store = open_store(place, timeout, serves)
        word = _admit_ranks(store, place, deadline) if place.rank == 0 else _join(store, place, timeout)
    except dist.DistError as error:
        raise RendezvousError(_timeout_message(place, timeout, str(error))) from None
    return PrefixStore(word, store), word


def open_store(place: RankAddress, timeout: float, is_server: bool = False) -> Store:
    """A connection of its own to where the ranks meet. serves: open the place, rather than come to it."""
    patience = timedelta(seconds=timeout)
    return dist.TCPStore(  # type: ignore[attr-defined]
        place.address, place.port, None, is_server, patience, wait_for_workers=False
    )  # fmt: skip


def store_owner(place: RankAddress) -> str:
    """Who keeps the store, in words."""
    return f"{'the agent' if _agent_owns_store() else 'rank 0'} at {place.address}:{place.port}"


def _agent_owns_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _wait_for_server(place: RankAddress, deadline: float) -> None:
    """Wait until somebody listens there. A store that waits for that itself fills the screen with C++ stacks."""
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise dist.DistNetworkError(str(error)) from None
        time.sleep(0.1)


def _join(store: Store, place: RankAddress, timeout: float) -> str:
    name = uuid.uuid4().hex
    store.set(f"groundup/{place.rank}", name)
    store.wait([f"groundup/{name}/told"], timedelta(seconds=timeout))
    word: str = store.get(f"groundup/{name}/told").decode()
    store.set(f"groundup/{name}/heard/{word}", "")
    return word


def _admit_ranks(store: Store, place: RankAddress, deadline: float) -> str:
    word, missing = uuid.uuid4().hex, list(range(1, place.ranks))
    while missing:
        missing = [rank for rank in missing if not _has_joined(store, rank, word)]
        if missing and time.monotonic() > deadline:
            some = ", ".join(map(str, missing[:MAX_NAMED_RANKS])) + (
                ", ..." if len(missing) > MAX_NAMED_RANKS else ""
            )
            raise dist.DistStoreError(f"of {place.ranks} ranks {len(missing)} did not come: {some}")
        time.sleep(0.05)
    return word


def _has_joined(store: Store, rank: int, word: str) -> bool:
    """Tell a rank the word, if it has come; whether it has said that it heard it."""
    if not store.check([f"groundup/{rank}"]):
        return False
    name = store.get(f"groundup/{rank}").decode()  # of an earlier start perhaps, and then nobody hears it
    store.set(f"groundup/{name}/told", word)
    return bool(store.check([f"groundup/{name}/heard/{word}"]))


def _timeout_message(place: RankAddress, timeout: float, why: str) -> str:
    return (
        f"rank {place.rank} waited {timeout:.0f} seconds for the other ranks at {place.address}:{place.port}: "
        f"{why.splitlines()[0].rstrip('.')}. Look whether all of them run, and whether rank 0's machine is reached "
        "under that name and port (MASTER_ADDR, MASTER_PORT); runtime.rank_timeout says how long to wait"
    )
