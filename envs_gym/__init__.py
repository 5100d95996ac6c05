"""Users' Gymnasium environments as the learner's `BatchedEnv`."""

from envs_gym.batch import HostBatch
from envs_gym.errors import HostError, message_of
from envs_gym.functions import Functions, find_functions
from envs_gym.host import Signals
from envs_gym.task import HostTask, registered

__all__ = [
    "Functions",
    "HostBatch",
    "HostError",
    "HostTask",
    "Signals",
    "find_functions",
    "message_of",
    "registered",
]
