"""The operating-system processes of a measurement: started, waited for, killed, and never left behind."""

from profiling.frame.processes.arguments import arguments
from profiling.frame.processes.child import Child
from profiling.frame.processes.group import ProcessGroup, processes_of
from profiling.frame.processes.ports import free_port
from profiling.frame.processes.waiting import wait_for_server, wait_until

__all__ = ["Child", "ProcessGroup", "arguments", "free_port", "processes_of", "wait_for_server", "wait_until"]
