from r1lab.world import FAMILIES, find_attempts
from r1lab.world.corpus import describe
from r1lab.sources.hub import LOCAL, SETS, load_source, save_traces
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import first_process
