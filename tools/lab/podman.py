"""What this machine makes podman need. The programs beside this file share it."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path


def host_options() -> tuple[list[str], list[str], list[str]]:
    """Options before and after "run", and words for the container's systemd.

    podman keeps all of it with the container, so a later "podman exec" needs nothing.
    """
    before, after, init = [], [], []
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():  # cgroup version 1, or the two mixed
        if shutil.which("crun") and shutil.which("runc"):
            before.append("--runtime=runc")
        init = ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0"]
    if not Path("/run/systemd/system").exists():
        before.append("--cgroup-manager=cgroupfs")
    capabilities = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    if not capabilities & 1 << 24:  # CAP_SYS_RESOURCE: podman's default limits would be refused
        for name, limit, enough in (
            ("nofile", resource.RLIMIT_NOFILE, 8192),
            ("nproc", resource.RLIMIT_NPROC, 4000),
        ):
            hard = resource.getrlimit(limit)[1]
            hard = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
            after.append(f"--ulimit={name}={hard}:{hard}")
    return before, after, init
