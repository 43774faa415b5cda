"""Where a file lies, told from the kernel's table of mounts."""

import os

import pytest

from agent.mounts import are_local


@pytest.fixture
def mounted(tmp_path):
    """Return whether a file is local when its device is mounted as these kinds."""
    file = tmp_path / "key.pem"
    file.touch()
    device = file.stat().st_dev
    own = f"{os.major(device)}:{os.minor(device)}"

    def ask(*mounts, path=file):
        table = tmp_path / "mountinfo"
        # The fields between the sixth and the hyphen are optional and any number, proc(5) says.
        lines = (
            f"{number} 1 {device or own} / /mnt rw,noatime shared:7 master:2 - {kind} {source} rw\n"
            for number, (device, kind, source) in enumerate(mounts, start=20)
        )
        table.write_text("".join(lines))
        return are_local([str(path)], table)

    return ask


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay"])
def test_a_file_system_of_this_machine_is_local(mounted, kind):
    assert mounted((None, kind, "/dev/vda1"), ("0:99", "nfs4", "server:/keys"))


@pytest.mark.parametrize("kind", ["nfs4", "nfs", "cifs", "fuse.sshfs", "9p", "autofs", "new"])
def test_what_is_another_machines_or_not_known_is_not(mounted, kind):
    assert not mounted((None, kind, "ext4"), ("0:99", "ext4", "/dev/vda1"))


def test_a_device_that_is_in_no_line_is_not(mounted):
    assert not mounted(("0:99", "ext4", "/dev/vda1"))


def test_a_device_that_is_mounted_as_two_kinds_is_local_only_if_both_are(mounted):
    assert mounted((None, "ext4", "/dev/vda1"), (None, "tmpfs", "tmpfs"))
    assert not mounted((None, "ext4", "/dev/vda1"), (None, "nfs4", "server:/keys"))


def test_a_file_that_is_gone_is_not(mounted, tmp_path):
    assert not mounted((None, "ext4", "/dev/vda1"), path=tmp_path / "gone.pem")


def test_without_the_table_nothing_is(tmp_path):
    assert not are_local([str(tmp_path)], tmp_path / "no-proc")


def test_the_kernels_own_table_is_understood():
    shared_memory = "/dev/shm"  # noqa: S108 - a tmpfs on every Linux; nothing is put there

    assert are_local([shared_memory])
    assert not are_local([shared_memory, "/proc/self/status"])
