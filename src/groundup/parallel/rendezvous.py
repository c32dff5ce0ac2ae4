"""Rendezvous of ranks that an external launcher has started: a key-value store of this start alone.

in:  this process's rank and the address of rank 0
out: a key-value store that all ranks of this start share; an error that names the ranks that did not connect

torchrun's agent keeps one store over all restarts, in which ranks would find addresses of processes that have ended. So
every rank registers under a new name, rank 0 sends it the key prefix of this start, and the rank acknowledges it.
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
"""Most missing ranks listed in a message."""


class RendezvousError(GroundupError):
    """Not all ranks connected in time."""


@dataclass(frozen=True)
class RankAddress:
    """This process's rank in the cluster, and the address of the store."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    host: str
    port: int


def rendezvous(address: RankAddress, timeout: float) -> tuple[Store, str]:
    """The store of this start and its key prefix. Raises RendezvousError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    is_server = address.rank == 0 and not _agent_owns_store()
    try:
        if not is_server:
            _wait_for_server(address, deadline)
        store = open_store(address, timeout, is_server)
        prefix = (
            _admit_ranks(store, address, deadline) if address.rank == 0 else _join(store, address, timeout)
        )
    except dist.DistError as error:
        raise RendezvousError(_timeout_message(address, timeout, str(error))) from None
    return PrefixStore(prefix, store), prefix


def open_store(address: RankAddress, timeout: float, is_server: bool = False) -> Store:
    """A connection to the store. is_server: host the store in this process."""
    store_timeout = timedelta(seconds=timeout)
    return dist.TCPStore(  # type: ignore[attr-defined]
        address.host, address.port, None, is_server, store_timeout, wait_for_workers=False
    )  # fmt: skip


def store_owner(address: RankAddress) -> str:
    """The process that hosts the store, for messages."""
    return f"{'the agent' if _agent_owns_store() else 'rank 0'} at {address.host}:{address.port}"


def _agent_owns_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _wait_for_server(address: RankAddress, deadline: float) -> None:
    """Wait until the store accepts connections. A TCPStore that waits by itself prints C++ stack traces."""
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise dist.DistNetworkError(str(error)) from None
        time.sleep(0.1)


def _join(store: Store, address: RankAddress, timeout: float) -> str:
    name = uuid.uuid4().hex
    store.set(f"groundup/{address.rank}", name)
    store.wait([f"groundup/{name}/prefix"], timedelta(seconds=timeout))
    prefix: str = store.get(f"groundup/{name}/prefix").decode()
    store.set(f"groundup/{name}/acknowledged/{prefix}", "")
    return prefix


def _admit_ranks(store: Store, address: RankAddress, deadline: float) -> str:
    prefix, missing = uuid.uuid4().hex, list(range(1, address.ranks))
    while missing:
        missing = [rank for rank in missing if not _has_joined(store, rank, prefix)]
        if missing and time.monotonic() > deadline:
            some = ", ".join(map(str, missing[:MAX_NAMED_RANKS])) + (
                ", ..." if len(missing) > MAX_NAMED_RANKS else ""
            )
            raise dist.DistStoreError(f"{len(missing)} of {address.ranks} ranks did not connect: {some}")
        time.sleep(0.05)
    return prefix


def _has_joined(store: Store, rank: int, prefix: str) -> bool:
    """Send a registered rank the prefix; whether it has acknowledged it."""
    if not store.check([f"groundup/{rank}"]):
        return False
    name = store.get(f"groundup/{rank}").decode()  # perhaps of an earlier start, which never acknowledges
    store.set(f"groundup/{name}/prefix", prefix)
    return bool(store.check([f"groundup/{name}/acknowledged/{prefix}"]))


def _timeout_message(address: RankAddress, timeout: float, why: str) -> str:
    return (
        f"rank {address.rank} waited {timeout:.0f} seconds for the other ranks at {address.host}:{address.port}: "
        f"{why.splitlines()[0].rstrip('.')}. Check that all ranks run and that rank 0's machine is reachable "
        "under that address (MASTER_ADDR, MASTER_PORT); runtime.rank_timeout sets how long to wait"
    )
