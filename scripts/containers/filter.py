"""Compiles a list of system calls, as engines read it, into the BPF program that they install, with Debian's python3-seccomp.

Usage: filter.py LIST.json OUT [CALL…], with further calls that are allowed
"""

import json
import sys

import seccomp

COMPARISONS = {"SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ}


def action_of(name, errno=1):
    return seccomp.ALLOW if name == "SCMP_ACT_ALLOW" else seccomp.ERRNO(errno)


def arguments_of(group):
    for each in group.get("args", []):
        yield seccomp.Arg(each["index"], COMPARISONS[each["op"]], each["value"], each.get("valueTwo", 0))


def main(source, target, *more):
    profile = json.load(open(source))
    allowed = [{"names": list(more), "action": "SCMP_ACT_ALLOW"}]
    chosen = seccomp.SyscallFilter(action_of(profile["defaultAction"]))
    for group in profile["syscalls"] + allowed:
        for name in group["names"]:
            chosen.add_rule(action_of(group["action"], group.get("errnoRet", 1)), name, *arguments_of(group))
    with open(target, "wb") as file:
        chosen.export_bpf(file)


main(*sys.argv[1:])
