"""Which files lie on file systems of this machine, where asking for their status cannot hang."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# What is not here may be somebody else's: NFS, CIFS, FUSE, 9p, autofs.
_LOCAL: Final = frozenset(
    {"btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "squashfs", "tmpfs"}
    | {"xfs", "zfs"}
)
_TABLE: Final = Path("/proc/self/mountinfo")


def are_local(paths: Iterable[str], table: Path = _TABLE) -> bool:
    """Tell whether all of these files, links followed, lie there; False when that is not known.

    It blocks, and hangs where the files' status does. `table` is one of proc_pid_mountinfo(5).
    """
    try:
        devices = {Path(path).stat().st_dev for path in paths}
        mounts = table.read_text(errors="replace").splitlines()
    except OSError:
        return False
    numbers = {f"{os.major(device)}:{os.minor(device)}" for device in devices}
    kinds = [{*_kinds(mounts, number)} for number in numbers]
    return all(kind and kind <= _LOCAL for kind in kinds)


def _kinds(mounts: Iterable[str], number: str) -> Iterator[str]:
    """Yield the type of each mount of this device; several show parts of the same one."""
    for mount in mounts:
        fields, found, rest = mount.partition(" - ")
        if found and fields.split(" ")[2:3] == [number]:
            yield rest.split(" ")[0]
