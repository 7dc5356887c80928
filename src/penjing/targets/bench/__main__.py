"""The fresh process of `FreshProcess`: times the jobs of a request, and prints the seconds of each call as JSON."""

import json
import sys
from pathlib import Path

import numpy as np

from penjing.errors import PenjingError
from penjing.targets import open_artifact
from penjing.targets.bench import Job, ThisProcess


def main(request: Path) -> None:
    """Times the jobs that a request file lists, and prints the times."""
    asked = json.loads(request.read_text())
    jobs = {
        name: Job(open_artifact(job["path"], job["target"]), dict(np.load(job["inputs"])), job["threads"])
        for name, job in asked["jobs"].items()
    }
    print(json.dumps(ThisProcess().times(jobs, asked["runs"], asked["limit"])))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except PenjingError as error:
        sys.exit(str(error))
