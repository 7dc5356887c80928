"""Writes `run.py`: that of ONNX Runtime, whose session is replaced by one of PyTorch."""

from pathlib import Path

from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.targets.onnxruntime._runner import write_runner as write_onnxruntime_runner

SESSION = '''class Session:
    """A .pt2 file, run by PyTorch. Reading one is as trusting as running code: only use files of your own."""

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        program = torch.export.load(path)
        self.model = program.module(check_guards=False)
        specs = program.graph_signature.input_specs
        name = next(spec.arg.name for spec in specs if spec.kind.name == "USER_INPUT")
        value = next(node for node in program.graph.nodes if node.name == name).meta["val"]
        self.dtype = str(value.dtype).removeprefix("torch.")
        self.shape = [size if isinstance(size, int) else str(size) for size in value.shape]

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the first output for a batch of inputs."""
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(batch))
        while not isinstance(outputs, torch.Tensor):
            outputs = next(iter(outputs.values() if isinstance(outputs, dict) else outputs))
        return outputs.numpy()


'''
# What stands in the script of ONNX Runtime, and what takes its place.
CHANGES = {
    "with ONNX Runtime, NumPy and Pillow alone": "with PyTorch, NumPy and Pillow alone",
    "import onnxruntime\n": "import torch\n",
    "from PIL import Image, ImageOps\n": (
        "from PIL import Image, ImageOps\n"
        "from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops of quantised models\n"
    ),
    'DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}\n': "",
    "class Model:\n": SESSION + "class Model:\n",
    "        options = onnxruntime.SessionOptions()\n": "",
    "        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1\n": "",
    '        path, providers = str(HERE / "model.onnx"), ["CPUExecutionProvider"]\n': "",
    "onnxruntime.InferenceSession(path, options, providers=providers)": 'Session(str(HERE / "model.pt2"), threads)',
    "        given = self.session.get_inputs()[0]\n": "",
    "self.input_name, self.shape = given.name, given.shape": "self.shape = self.session.shape",
    'np.dtype(DTYPES.get(given.type, given.type.removeprefix("tensor(").removesuffix(")")))': (
        "np.dtype(self.session.dtype)"
    ),
    "given.shape[0] if isinstance(given.shape[0], int)": "self.shape[0] if isinstance(self.shape[0], int)",
    "self.session.run(None, {self.input_name: batch})[0]": "self.session.run(batch)",
}


def write_runner(directory: Path) -> Path:
    """Writes `run.py` into `directory` and returns its path.

    Raises:
        PenjingError: it can't be written there.
    """
    path = write_onnxruntime_runner(directory)
    script = path.read_text()
    for before, after in CHANGES.items():
        if script.count(before) != 1:
            raise AssertionError(f"The script of ONNX Runtime holds {before!r} {script.count(before)} times, not once.")
        script = script.replace(before, after)
    try:
        atomic_write(path, script)
    except OSError as error:
        raise PenjingError(f"Can't write {path}: {error.strerror or error}.") from error
    return path
