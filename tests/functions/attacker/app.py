"""Runs the attacks that an event names, or a whole group of them."""

import capabilities
import descriptors
import devices
import files
import information
import ipc
import namespaces
import proc
import processes
import sockets
import system_calls
from attack import outcome

GROUPS = {
    module.__name__: module.ATTACKS
    for module in (
        namespaces,
        capabilities,
        system_calls,
        sockets,
        files,
        proc,
        devices,
        ipc,
        processes,
        descriptors,
        information,
    )
}


def handler(event, context):
    if "road" in event:  # a stem gets its variables after its exec
        with open("/proc/self/environ") as file:
            return "_HANDLER=" in file.read()
    named = {name: function for group in GROUPS.values() for name, function in group.items()}
    chosen = GROUPS[event["group"]] if "group" in event else {name: named[name] for name in event["attacks"]}
    return {name: outcome(function, event["host"]) for name, function in chosen.items()}
